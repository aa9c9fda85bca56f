"""hydra/launcher=slurm: what is submitted, what a worker does, and that nothing of a stranger's becomes a command.

An sbatch that only keeps what it is given stands in for Slurm, this process for a worker; test_real_slurm.py has both.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY

from iolaus.files.locks import file_lock
from iolaus.studies.slurm import own_command
from iolaus.studies.slurm_script import WORKER, SlurmSettings, format_script, quote_option, seconds_of

SLURM = (*TINY, "-m", "study=s", "trainer.monitor_every=0", "hydra/launcher=slurm")
SEARCH = (*SLURM, "hydra/sweeper=optuna", "lr=interval(0.001,0.1)", "hydra.sweeper.n_trials=2")
HOSTILE = ["$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "a\ntouch pwned\n#SBATCH -x",
           " ", "\\", "!!", "~", "é", "*"]  # fmt: skip
DEFAULTS = {
    **dict.fromkeys(("partition", "account", "gpus", "cpus", "memory", "time", "constraint")),
    **{"jobs": 4, "nodes": 1, "extra": [], "setup": [], "grace_seconds": 120, "dry_run": False},
}


class Queue:
    """What was given to sbatch, and what squeue answers."""

    def __init__(self, folder):
        self.folder = folder

    @property
    def scripts(self):
        return [path.read_text() for path in sorted(self.folder.glob("script*"))]

    def holds(self, workers):
        (self.folder / "queue").write_text("7_0\n" * workers)

    def refuses(self, words):
        self.make("sbatch", f"echo {shlex.quote(words)} >&2; exit 1")

    def make(self, program, *lines):
        path = self.folder / program
        path.write_text("\n".join(["#!/bin/bash", *lines, ""]))
        path.chmod(0o755)


@pytest.fixture
def queue(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("bin")
    queue = Queue(folder)
    queue.make("sbatch", f"cat > {folder}/script$(ls {folder} | wc -l)", "echo '42;cluster'")
    queue.make("squeue", f"cat {folder}/queue 2>/dev/null; exit 0")
    queue.make("scontrol", f'echo "$@" >> {folder}/requeued')
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.delenv(WORKER, raising=False)
    return queue


@pytest.fixture
def in_worker(monkeypatch):
    """Within it this process is a worker, submitted so many seconds ago."""

    def set_worker(seconds=0.0):
        monkeypatch.setenv(WORKER, f"{time.time() - seconds:.0f}")

    return set_worker


def statuses(outcome):
    return [json.loads((run / "results.json").read_text())["status"] for run in outcome.runs]


# ---- what is submitted


def test_a_grid_is_checked_and_submitted_worked_at_and_then_shown(command, queue, in_worker, monkeypatch):
    outcome = command(*SLURM, "seed=0,1,2", "hydra.launcher.jobs=2", "hydra.launcher.partition=gpu")
    assert outcome.status == 0, outcome.err
    assert outcome.runs == []
    (script,) = queue.scripts
    assert "#SBATCH --array=0-1\n" in script
    assert "#SBATCH --partition=gpu\n" in script
    assert "job 42;" in outcome.out
    assert "iolaus watch outputs/s" in outcome.out
    assert (outcome.cwd / "outputs/s/.slurm/42.sh").read_text() == script
    (line,) = [line for line in script.splitlines() if line.endswith(" &")]
    assert shlex.split(line)[-3:] == ["hydra.launcher.jobs=2", "hydra.launcher.partition=gpu", "&"]
    in_worker()
    outcome = command(*SLURM, "seed=0,1,2", "hydra.launcher.jobs=2")
    assert statuses(outcome) == ["finished"] * 3
    monkeypatch.delenv(WORKER)
    outcome = command(*SLURM, "seed=0,1,2,3", "hydra.launcher.jobs=2")
    assert "#SBATCH --array=0-0\n" in queue.scripts[1]  # what is missing
    outcome = command(*SLURM, "seed=0,1,2", "hydra.launcher.jobs=2")
    assert outcome.status == 0
    assert len(queue.scripts) == 2
    assert outcome.out.count(" finished\n") == 3


def test_workers_that_are_queued_or_at_work_are_not_submitted_twice(command, queue):
    queue.holds(2)
    assert command(*SLURM, "seed=0,1,2").status == 0
    assert "#SBATCH --array=0-0\n" in queue.scripts[0]
    queue.holds(3)
    outcome = command(*SLURM, "seed=0,1,2")
    assert len(queue.scripts) == 1
    assert "3 workers are queued or at work" in outcome.out + outcome.err


def test_a_single_run_is_a_study_of_one_and_needs_m(command, queue, in_worker):
    outcome = command(*TINY, "hydra/launcher=slurm")
    assert (outcome.status, outcome.err) == (2, "iolaus: hydra/launcher=slurm: needs -m, for a single run too\n")
    assert not list(outcome.cwd.iterdir())
    assert command(*SLURM).status == 0
    assert "#SBATCH --array=0-0\n" in queue.scripts[0]
    in_worker()
    outcome = command(*SLURM)
    assert [run.name for run in outcome.runs] == ["run"]


def test_a_search_opens_its_study_and_the_last_worker_tests_the_winner(command, queue, in_worker, monkeypatch):
    from iolaus.studies.study import SharedStudy

    assert command(*SEARCH).status == 0
    assert "#SBATCH --array=0-1\n" in queue.scripts[0]
    in_worker()
    with monkeypatch.context() as patch:  # as another worker has it
        patch.setattr(SharedStudy, "has_running_trials", lambda self: True)
        outcome = command(*SEARCH)
    assert outcome.status == 0, outcome.err
    assert not list(outcome.cwd.glob("outputs/s/optimization_results.yaml"))
    monkeypatch.delenv(WORKER)
    assert command(*SEARCH).status == 0
    assert "#SBATCH --array=0-0\n" in queue.scripts[1]  # for the winner's test
    in_worker()
    assert command(*SEARCH).status == 0
    tested = [any(k.startswith("test/") for k in json.loads((run / "results.json").read_text())["metrics"]["last"])
              for run in outcome.runs]  # fmt: skip
    assert sorted(tested) == [False, True]
    monkeypatch.delenv(WORKER)
    outcome = command(*SEARCH)
    assert (outcome.status, len(queue.scripts)) == (0, 2)
    assert list(outcome.cwd.glob("outputs/s/optimization_results.yaml"))


@pytest.mark.parametrize("arguments", [(*SLURM, "seed=0,1"), SEARCH], ids=["grid", "search"])
def test_what_sbatch_refuses_is_one_line_and_leaves_nothing(command, queue, arguments):
    queue.refuses("sbatch: error: invalid partition specified: gpuu\nsbatch: error: Batch job submission failed")
    outcome = command(*arguments)
    assert outcome.status == 2
    lines = outcome.err.splitlines()
    assert lines[-1].startswith("iolaus: hydra/launcher=slurm: error: invalid partition specified: gpuu; ")
    assert not list(outcome.cwd.iterdir())


def test_without_slurm_it_is_one_line_and_the_script_can_be_seen_all_the_same(command, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    outcome = command(*SLURM, "seed=0,1")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith("iolaus: hydra/launcher=slurm: no sbatch here")
    for arguments in ((*SLURM, "seed=0,1"), SEARCH):
        outcome = command(*arguments, "hydra.launcher.dry_run=true")
        assert outcome.status == 0
        assert outcome.out.startswith("#!/bin/bash\n#SBATCH --job-name=s-")
    assert not list(outcome.cwd.iterdir())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("hydra.launcher.jobs=0",), "hydra.launcher.jobs=0: must be 1 or more"),
        (("hydra.launcher.gpus=2",), "hydra.launcher.gpus=2: a run takes one; trainer.devices=2 takes all of them"),
        (("hydra.launcher.nodes=2", "trainer.devices=3"), "trainer.devices=3: hydra.launcher.nodes and .gpus say how"),
        (("hydra/sweeper=optuna", "hydra.sweeper.n_jobs=2"), "hydra.sweeper.n_jobs=2: under Slurm hydra.launcher.jobs"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_submitted(command, queue, arguments, line):
    outcome = command(*SLURM, "seed=0,1", *arguments)
    assert outcome.status == 2
    assert outcome.err.startswith(f"iolaus: {line}")
    assert outcome.err.count("\n") == 1
    assert queue.scripts == []
    assert not list(outcome.cwd.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("time", 1, "longer than grace_seconds=120"),
        ("time", "tomorrow", "minutes, H:M:S or D-H:M:S"),
        ("memory", "lots", "megabytes, or with a unit: 32G"),
        ("extra", ["reboot"], "options: --NAME=VALUE"),
        ("partition", "a\nb", "one line of text"),
        ("grace_seconds", 0, "seconds above 0, 65535 at most"),
    ],
)
def test_what_sbatch_would_not_take_is_refused(name, value, allowed):
    with pytest.raises(ValueError, match=f"^{name}=.*: must be {allowed}$"):
        SlurmSettings(**DEFAULTS | {name: value})


# ---- what a worker does


def test_a_worker_leaves_out_what_others_have_and_what_failed_since_it_was_submitted(
    command, queue, in_worker, first_step_fails
):
    arguments = (*SLURM, "seed=0,1")
    in_worker(seconds=100)
    outcome = command(*arguments)
    assert outcome.status == 1
    assert statuses(outcome) == ["failed", "finished"]
    failed, finished = (run / "results.json" for run in outcome.runs)
    command(*arguments)
    assert json.loads(failed.read_text())["status"] == "failed"
    finished.unlink()
    in_worker(seconds=-100)  # the same command given again, later
    with file_lock(finished.with_name(".lock")):
        command(*arguments)
    assert json.loads(failed.read_text())["status"] == "finished"
    assert not finished.exists()
    command(*arguments)
    assert finished.exists()


# ---- the script


def script_of(command, **changes):
    return format_script(SlurmSettings(**DEFAULTS | changes), command, "name", Path("logs"), 1, 0.0)


def run_script(queue, folder, script):
    return subprocess.Popen(["bash", "-c", script], cwd=folder, text=True, stdout=subprocess.PIPE,
                            env={**os.environ, "SLURM_ARRAY_JOB_ID": "42", "SLURM_ARRAY_TASK_ID": "3"})  # fmt: skip


def test_no_value_of_the_command_becomes_one_of_the_shells(queue, tmp_path, monkeypatch):
    place = tmp_path / "a $(touch pwned) 'b'\n"
    place.mkdir()
    monkeypatch.chdir(place)
    script = script_of(["printf", r"%s\0", *HOSTILE], constraint='x" $(touch pwned)', extra=["--comment=a'b\\"])
    out, _ = run_script(queue, tmp_path, script).communicate()
    assert out.split("\0")[:-1] == HOSTILE
    assert not list(tmp_path.rglob("pwned"))
    head = script[: script.index("cd -- ")].splitlines()
    assert all(line.startswith("#") for line in head)
    assert '#SBATCH "--constraint=x\\" $(touch pwned)"' in head


def test_values_of_the_command_line_arrive_in_the_script_as_they_were_typed(command, queue):
    outcome = command(*SLURM, r"+table={a: '$(touch pwned)', b: 'x\'y', c: '`touch pwned`'}", "seed=0,1")
    assert outcome.status == 0, outcome.err
    (script,) = queue.scripts
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    (line,) = [line for line in script.splitlines() if line.endswith(" &")]
    assert r"+table={a: '$(touch pwned)', b: 'x\'y', c: '`touch pwned`'}" in shlex.split(line)


def test_a_secret_reaches_the_worker_and_stays_out_of_the_script_that_is_kept(command, queue, monkeypatch):
    monkeypatch.setenv("OTHER_API_KEY", "a $word1")
    table = "+table={note: 'a $word1', address: 'postgresql://me:hunter22@host/db'}"
    typed = ("hydra.launcher.extra=['--comment=a $word1']", "hydra.launcher.setup=['login \"a $word1\"']")
    outcome = command(*SLURM, table, *typed)
    assert outcome.status == 0, outcome.err
    (script,) = queue.scripts
    assert (script.count("a $word1"), script.count("hunter22")) == (5, 1)
    kept = (outcome.cwd / "outputs/s/.slurm/42.sh").read_text()
    assert (kept.count("$word1"), kept.count("hunter22"), kept.count("${oc.env:OTHER_API_KEY}")) == (0, 0, 5)


@pytest.mark.parametrize(
    ("sent", "status", "requeued"), [("USR1", 143, True), ("TERM", 143, False), ("USR1", 0, False)]
)
def test_a_worker_stops_by_a_signal_and_queues_again_at_the_end_of_its_time(queue, tmp_path, sent, status, requeued):
    python = f"trap 'echo saved; exit {status}' TERM; echo ready; while :; do sleep 0.02; done"
    worker = run_script(queue, tmp_path, script_of(["bash", "-c", python]))
    assert worker.stdout.readline() == "ready\n"
    time.sleep(0.2)  # the script learns of its child after the child has begun
    worker.send_signal(getattr(signal, f"SIG{sent}"))
    out, _ = worker.communicate(timeout=20)
    assert (out, worker.returncode) == ("saved\n", status)
    again = queue.folder / "requeued"
    assert (again.read_text() if again.exists() else "") == ("requeue 42_3\n" if requeued else "")


def test_the_end_of_time_while_modules_are_loaded_queues_again_without_a_start(queue, tmp_path):
    worker = run_script(queue, tmp_path, script_of(["echo", "started"], setup=["echo ready; sleep 0.3"]))
    assert worker.stdout.readline() == "ready\n"
    worker.send_signal(signal.SIGUSR1)
    assert worker.communicate(timeout=20)[0] == ""
    assert (queue.folder / "requeued").read_text() == "requeue 42_3\n"


def test_several_machines_train_one_run_by_a_process_for_each_of_their_gpus():
    script = script_of(["python", "train.py"], nodes=2, gpus=4, cpus=8, memory="64G", time="1-12:00:00")
    for line in ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--mem=64G", "--time=1-12:00:00"):
        assert f"#SBATCH {line}\n" in script
    assert "srun --kill-on-bad-exit=1 --cpus-per-task=8 bash -c" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_times_are_read_as_sbatch_reads_them():
    times = {"90": 5400, 90: 5400, "90:30": 5430, "1:30:00": 5400, "2-0": 172800, "1-1:30": 91800, "1-0:0:1": 86401}
    assert {time: seconds_of(time) for time in times} == times
    with pytest.raises(ValueError, match="time=1h"):
        seconds_of("1h")


def test_the_command_of_another_machine_names_python_and_the_program_by_their_paths(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/iolaus", "-m", "a=1"])
    assert own_command() == [sys.executable, "-m", "iolaus", "train", "-m", "a=1"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "a=1"])
    assert own_command() == [sys.executable, str(tmp_path / "train.py"), "-m", "a=1"]


# ---- what a file may say


def write_recipe(folder, text):
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / "strange.yaml").write_text(f"# @package _global_\n{text}\n")


def test_a_time_needs_no_quotes_in_a_recipe(command, queue, tmp_path):
    write_recipe(tmp_path, "hydra: {launcher: {time: 1:30:00}}")
    outcome = command(*SLURM, "experiment=strange", "hydra.launcher.dry_run=true")
    assert "#SBATCH --time=1:30:00\n" in outcome.out


@pytest.mark.parametrize(
    ("recipe", "arguments", "line"),
    [
        ("{sweeper: {max_batchsize: 3}}", (), "hydra.sweeper.max_batchsize=3: .*did you mean max_batch_size?"),
        ("{}", ("+hydra.launcher.tim=3",), "hydra.launcher.tim: no such key; allowed: none"),
        ("{}", ("hydra/launcher=joblib", "+hydra.launcher.time=3"), "hydra.launcher.time: .*did you mean timeout?"),
        ("{}", ("hydra/sweeper=optuna", "lr=interval(0.1,1)", "+hydra.sweeper.sampler.sed=3"),
         "hydra.sweeper.sampler.sed=3: .*did you mean seed?"),
    ],
)  # fmt: skip
def test_a_key_that_neither_sweeper_nor_launcher_has_is_one_line(command, tmp_path, recipe, arguments, line):
    write_recipe(tmp_path, f"hydra: {recipe}")
    outcome = command(*TINY, "-m", "experiment=strange", "seed=0,1", *arguments)
    assert outcome.status == 2
    assert re.match(f"iolaus: {line}".replace("?", r"\?"), outcome.err), outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("value", ["setup: reboot", "extra: [--wrap=reboot]", "account: '$(reboot)'"])
def test_a_recipe_may_choose_slurm_but_gives_it_no_commands(command, queue, tmp_path, value):
    write_recipe(tmp_path, f"hydra: {{launcher: {{partition: gpu, {value}}}}}")
    outcome = command(*SLURM, "experiment=strange", "seed=0,1")
    assert outcome.status == 2
    name = value.split(":")[0]
    hint = r"can run or write something else; give it on the command line or in conf/local/slurm\.yaml"
    assert re.fullmatch(rf"iolaus: hydra\.launcher\.{name}=.*: {hint}\n", outcome.err)
    assert queue.scripts == []
    assert not (tmp_path / "outputs").exists()


def test_what_the_user_typed_and_the_users_own_values_of_this_cluster_are_the_users_word(command, queue, tmp_path):
    local = tmp_path / "conf" / "local"
    local.mkdir(parents=True)
    (local / "slurm.yaml").write_text("partition: gpu\nsetup:\n  - module load 'x'\nextra: ['--qos=high']\n")
    outcome = command(*SLURM, "seed=0,1", "hydra.launcher.account=me")
    assert outcome.status == 0, outcome.err
    for line in ("#SBATCH --partition=gpu", "#SBATCH --qos=high", "#SBATCH --account=me", "module load 'x'"):
        assert f"{line}\n" in queue.scripts[0]
    outcome = command(*SLURM, "study=t", "seed=0,1", "hydra.launcher.setup=[\"source 'a b'\"]")
    assert outcome.status == 0, outcome.err
    assert "source 'a b'\n" in queue.scripts[1]
    write_recipe(tmp_path, "hydra: {launcher: {setup: [module load 'x', touch pwned]}}")
    assert command(*SLURM, "experiment=strange", "seed=0,1").status == 2


def test_a_link_among_the_scripts_of_a_study_is_not_followed(command, queue, tmp_path):
    folder = tmp_path / "outputs" / "s" / ".slurm"
    folder.mkdir(parents=True)
    (tmp_path / "mine").write_text("precious")
    (folder / "submit.lock").symlink_to(tmp_path / "mine")
    outcome = command(*SLURM, "seed=0,1")
    assert outcome.status == 2
    assert "a link that leads out of its folder" in outcome.err


def test_an_option_is_quoted_only_where_it_must_be():
    assert quote_option("--constraint=[a100|h100]&ib") == "--constraint=[a100|h100]&ib"
    assert quote_option("--comment=a #b") == '"--comment=a #b"'
