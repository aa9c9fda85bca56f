"""A grid goes on past the runs that fail, leaves out those that are finished, and can be kept in a recipe."""

import contextlib
import os
import re
import subprocess
import sys
from unittest import mock

import joblib
import pytest
from conftest import ROOT, TINY, alone, exhaustive, thin
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from iolaus.errors import ConfigError
from iolaus.files import locks
from iolaus.files.atomic import read_json
from iolaus.studies.fixed import check_sweeper
from iolaus.studies.grid import combine


def told(outcome):
    return outcome.out + outcome.err


def parse(*overrides):
    return OverridesParser.create().parse_overrides(list(overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("a=1", "+b=x y"),
        ("a=1,2", "b=range(0,3)", "c=x"),
        ("a=choice('x,y',z)", "b/c@d=sort(3,1,2)", "++e=[1,2],{f: null}"),
        ("a=1,2", "a=3", "b=4", "b=5,6"),
    ],
)
def test_the_combinations_are_those_of_hydras_own_sweeper(overrides):
    (reference,) = BasicSweeper.split_arguments(parse(*overrides), None)
    assert combine(parse(*overrides)) == reference


def test_a_deletion_stays_as_it_was_typed():
    """Hydra's own sweeper makes `~b=null` of it, which deletes nothing."""
    assert combine(parse("~b", "a=1,2")) == [["~b", "a=1"], ["~b", "a=2"]]


def test_a_grid_may_delete_a_key(command):
    outcome = command(*TINY, "-m", "study=s", "~optimizer.amsgrad", "seed=0,1")
    assert outcome.status == 0, outcome.err
    assert len(outcome.runs) == 2


def test_every_run_is_checked_before_the_first_trains(command):
    outcome = command(*TINY, "-m", "study=s", "seed=0,x", "trainer.batch_size=16,abc")
    assert outcome.status == 2
    assert [line for line in outcome.err.splitlines() if "iolaus" in line] == [
        "iolaus: seed=x: expected a whole number", "iolaus: trainer.batch_size=abc: expected a whole number",
    ]  # fmt: skip
    assert not (outcome.cwd / "outputs").exists()


def test_two_runs_of_a_sweep_never_share_a_folder(command):
    for arguments, subdir in ((["hydra.sweep.subdir=one", "seed=0,1"], "one"), (["seed=0,0"], "seed=0")):
        outcome = command(*TINY, "-m", *arguments)  # whose study's name changes with the arguments
        assert outcome.status == 2
        (line,) = outcome.err.splitlines()
        assert f"two runs of this sweep would have the folder {subdir}; give each value once" in line
    assert not (outcome.cwd / "outputs").exists()


def test_a_run_outside_the_studys_folder_is_refused_before_any_trains(command):
    outcome = command(*TINY, "-m", "hydra.sweep.subdir=../x${hydra.job.num}", "seed=0,1")
    assert outcome.status == 2
    assert "Launching" not in outcome.out + outcome.err
    assert "hydra.sweep.subdir=../x0: must be a folder within the run's" in outcome.err
    assert not (outcome.cwd / "outputs").exists()


def test_an_override_is_text_until_a_run_resolves_it(command):
    outcome = command(*TINY, "-m", "study=s", "hydra.sweep.subdir=run-${seed}", "seed=3,4",
                      "optimizer.weight_decay=${optimizer.lr}")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert [run.name for run in outcome.runs] == ["run-3", "run-4"]


def test_a_grid_without_a_run_is_a_mistake(command):
    outcome = command(*TINY, "-m", "study=s", "seed=range(0)")
    assert outcome.status == 2
    assert "seed=range(0): nothing to run" in outcome.err
    assert not (outcome.cwd / "outputs").exists()


def test_a_space_without_a_list_of_values_is_no_grid(command):
    with pytest.raises(ConfigError, match=r"^a=interval\(0,1\): a grid can't list its values"):
        combine(parse("a=interval(0,1)"))
    outcome = command(*TINY, "-m", "study=s", "optimizer.lr=interval(0,1)")
    assert outcome.status == 2
    assert outcome.err.startswith("iolaus: optimizer.lr=interval(0,1): a grid can't list its values; ")
    assert not (outcome.cwd / "outputs").exists()


def test_a_launcher_gets_no_more_jobs_at_once_than_the_batch_size(command):
    arguments = (*TINY, "-m", "study=s", "seed=0,1,2", "hydra.sweeper.max_batch_size=2")
    outcome = command(*arguments)
    assert outcome.status == 0, outcome.err
    assert [run.name for run in outcome.runs] == ["seed=0", "seed=1", "seed=2"]
    assert command(*arguments[:-1], "hydra.sweeper.max_batch_size=0").status == 2


def test_a_run_that_fails_is_recorded_and_the_others_go_on(command):
    arguments = (*TINY, "-m", "study=s", "optimizer=sgd", "trainer.log_every=1", "lr=0.1,1e30,0.05", "trainer.epochs=4")
    outcome = command(*arguments)
    assert outcome.status == 1
    assert "1 of 3 runs failed" in told(outcome)
    assert "Traceback" not in told(outcome)
    states = {run.name: read_json(run / "results.json") for run in outcome.runs}
    assert {name: result["status"] for name, result in states.items()} == {
        "optimizer.lr=0.1": "finished", "optimizer.lr=1e+30": "failed", "optimizer.lr=0.05": "finished",
    }  # fmt: skip
    assert "the training loss is" in states["optimizer.lr=1e+30"]["error"]
    assert "the training loss is" in outcome.out  # in the table's footnotes
    again = command(*arguments)
    assert again.status == 1
    assert "2 of 3 runs are finished already" in told(again)
    with mock.patch("iolaus.loop.train", side_effect=KeyboardInterrupt):
        assert command(*arguments).status == 130
    assert not (outcome.cwd / "outputs" / "s" / "optimizer.lr=1e+30" / "results.json").exists()  # it did not fail now


def test_an_error_of_any_kind_in_one_run_does_not_end_the_sweep(command, first_step_fails):
    outcome = command(*TINY, "-m", "study=s", "seed=0,1")
    assert outcome.status == 1
    results = [read_json(run / "results.json") for run in outcome.runs]
    assert [result["status"] for result in results] == ["failed", "finished"]
    assert results[0]["error"] == "ZeroDivisionError: the unexpected"
    assert "Traceback" in (outcome.runs[0] / "run.log").read_text()


def test_a_mistake_in_all_runs_is_told_with_status_2_and_leaves_nothing(command):
    outcome = command(*TINY, "-m", "study=s", "seed=0,1", "trainer.epochs=0")
    assert outcome.status == 2
    assert told(outcome).count("trainer.epochs=0: must be 1 or more") == 1
    assert not (outcome.cwd / "outputs").exists()


def test_what_is_varied_can_be_kept_in_the_sweepers_params(command):
    outcome = command(*TINY, "-m", "hydra.sweeper.params={seed: '0,1', optimizer.lr: '0.1,0.2'}")
    assert outcome.status == 0, outcome.err
    configs = [read_json(run / "results.json")["config"] for run in outcome.runs]
    varied = {(config["seed"], config["optimizer"]["lr"]) for config in configs}
    assert varied == {(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)}


def test_a_run_that_another_process_is_at_is_left_to_it(command):
    folder = command(*TINY, "-m", "study=s", "seed=0").cwd / "outputs" / "s"
    for run in folder.glob("*/results.json"):
        run.unlink()
    lock = next(folder.glob("*/.lock"))
    assert locks.is_locked_here(lock) is False  # signed, and free
    with locks.file_lock(lock) as ours:
        assert ours
        outcome = command(*TINY, "-m", "study=s", "seed=0")
    assert outcome.status == 0
    assert "is trained by another process" in told(outcome)
    assert list(folder.glob("*/results.json")) == []


def test_a_run_that_is_at_work_is_not_resumed_a_second_time(command):
    folder = command(*TINY, "hydra.run.dir=outputs/a").cwd / "outputs" / "a"
    (folder / "results.json").unlink()
    with locks.file_lock(folder / ".lock"):
        outcome = command("resume=outputs/a")
    assert outcome.status == 2
    assert "another process trains in outputs/a" in outcome.err
    assert command("resume=outputs/a").status == 0


@pytest.mark.parametrize(("argument", "line"), [
    ("+optimiser.lr=0.3", "optimiser: no such group; did you mean optimizer?"),
    ("+train={epochs: 1}", "train: no such group; did you mean trainer?"),
])  # fmt: skip
def test_a_group_that_nothing_reads_is_a_mistake(command, argument, line):
    outcome = command(*TINY, argument)
    assert outcome.status == 2
    assert line in outcome.err


def test_a_table_of_ones_own_may_be_looked_up(command):
    outcome = command(*TINY, "+size_of={mlp: 8, cnn: 4}", "trainer.batch_size=${size_of.cnn}")
    assert outcome.status == 0, outcome.err
    assert outcome.results["config"]["trainer"]["batch_size"] == 4


@thin(2)
@pytest.mark.parametrize(("n_jobs", "threads"), [(2, joblib.cpu_count() // 2), (1, joblib.cpu_count())])
@alone
def test_joblib_runs_several_at_once_each_with_its_share_of_the_cores(command, monkeypatch, n_jobs, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    outcome = command(*TINY, "-m", "study=s", "seed=0,1", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={n_jobs}")
    assert outcome.status == 0, told(outcome)
    results = [read_json(run / "results.json") for run in outcome.runs]
    assert [result["status"] for result in results] == ["finished"] * 2
    assert {result["device_name"].partition(",")[0] for result in results} == {
        f"cpu ({threads} thread{'s' * (threads > 1)}"
    }


@alone
def test_the_lines_of_runs_that_train_at_the_same_time_begin_with_their_names(tmp_path):
    arguments = (*TINY, "-m", "study=s", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = subprocess.run([sys.executable, ROOT / "train.py", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    epochs = [line for line in done.stderr.splitlines() if "train loss" in line]
    assert sorted(line.partition(":")[0] for line in epochs) == ["seed=0", "seed=1"]
    logs = [run.read_text() for run in tmp_path.glob("outputs/s/seed=*/run.log")]
    assert not any("seed=" in log for log in logs)


@exhaustive
@alone
def test_joblib_in_a_terminal_shows_the_table_of_the_study_and_not_the_lines_of_its_runs(tmp_path):
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    arguments = (*TINY, "-m", "study=s", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
                 "trainer.epochs=120", "trainer.monitor_every=0")  # fmt: skip
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "140", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, ROOT / "train.py", *arguments], cwd=tmp_path, stdin=theirs, stdout=theirs,
                          stderr=theirs, env=environment) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the last writer has closed it
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", shown.decode())
    assert process.returncode == 0, text
    assert re.search(r"s: .*2 running of 2", text)
    assert "2 finished" not in text.partition("2 running of 2")[0]
    assert text.count("finished") >= 2
    assert "train loss" not in text  # the head of a run's own lines
    logs = [(run / "run.log").read_text() for run in tmp_path.glob("outputs/s/seed=*")]
    assert len(logs) == 2
    assert all("model: " in log for log in logs)


@pytest.mark.parametrize(("made", "is_search"), [(".trials", False), ("seed=0/.hydra", True)])
def test_a_study_is_a_grid_or_a_search(tmp_path, made, is_search):
    (tmp_path / "s" / made).mkdir(parents=True)
    (tmp_path / "s" / made / "config.yaml").touch()
    check_sweeper(tmp_path / "s", not is_search)
    with pytest.raises(ConfigError, match="choose another study=NAME"):
        check_sweeper(tmp_path / "s", is_search)
