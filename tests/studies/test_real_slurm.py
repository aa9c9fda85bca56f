"""hydra/launcher=slurm under a real Slurm of two nodes on this machine, from Debian's slurm-wlm and munge.

Whatever ends a worker, nothing is lost and nothing is done twice.
"""

import contextlib
import json
import os
import re
import signal
import time
from pathlib import Path

import processes
import pytest
import real_slurm
from conftest import TINY, command_in
from real_slurm import begin_again, epochs_of, logs_of, queued, slurm, wait_for_the_end

pytestmark = real_slurm.MARKS
STEPS = 100  # of an epoch
LONG = (*TINY, "-m", "study=s", "hydra/launcher=slurm", "trainer.monitor_every=0", "trainer.device=cpu",
        "dataset.train_count=2000", "model.widths=[16]", "trainer.epochs=6")  # fmt: skip


@pytest.mark.parametrize("kind", ["grid", "search"])
def test_requeued_cancelled_and_preempted_workers_lose_nothing_and_repeat_nothing(cluster, command, tmp_path, kind):
    varied = ("seed=0,1,2,3",)
    if kind == "search":
        varied = (
            "hydra/sweeper=optuna",
            "seed=choice(0,1,2,3)",
            "hydra/sweeper/sampler=grid",
            "hydra.sweeper.n_trials=4",
        )
    arguments = (*LONG, *varied, "hydra.launcher.jobs=2")
    study = tmp_path / "outputs" / "s"
    for seconds in (0.5, 1.0):  # the submitting process is killed
        submitter = processes.start(tmp_path, *arguments)
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):  # it was faster
            processes.kill(submitter)
    outcome = command(*arguments)
    assert outcome.status == 0, outcome.err
    assert len(queued()) == 2
    processes.wait_for(lambda: len(queued()) < 2 or sum(len(epochs_of(run)) > 0 for run in study.glob("*")) == 2)
    first, second = queued()
    slurm("scancel", "--batch", "--signal=USR1", first)  # as Slurm does before the end of --time
    begin_again(first)
    slurm("scancel", second)
    processes.wait_for(lambda: second not in queued(), seconds=60)
    outcome = command(*arguments)
    assert outcome.status == 0, outcome.err
    assert queued()
    count = logs_of(study).count("epoch ")
    processes.wait_for(lambda: logs_of(study).count("epoch ") > count + 2 or len(queued()) < 2)
    if queued():
        slurm("scontrol", "requeue", queued()[0])  # as when another job takes the machine
        begin_again(queued()[0])
    wait_for_the_end(study)
    runs = sorted(path.parent for path in study.glob("*/results.json"))
    assert len(runs) == 4, logs_of(study)
    logs = logs_of(study)
    resumed = [int(step) for step in re.findall(r"resumed in epoch \d+, after step (\d+)", logs)]
    assert len(resumed) >= 2, logs
    assert any(step % STEPS for step in resumed), resumed
    lines = re.findall(r"^epoch (\d+)/6", logs, flags=re.MULTILINE)
    assert len(lines) == 4 * 6  # each epoch of each run is told once
    for run in runs:
        result = json.loads((run / "results.json").read_text())
        assert result["status"] == "finished"
        assert epochs_of(run) == [metrics["epoch"] for metrics in result["history"]] == list(range(6))
    outcome = command(*arguments)
    assert outcome.status == 0, outcome.err
    assert not queued()
    assert outcome.out.count(" finished\n") == 4
    alone_again = command(*(a for a in LONG if a not in ("-m", "study=s", "hydra/launcher=slurm")), "seed=2",
                        "hydra.run.dir=alone")  # fmt: skip
    assert alone_again.status == 0, alone_again.err
    same = [run for run in runs if json.loads((run / "results.json").read_text())["config"]["seed"] == 2]
    histories = [json.loads((run / "results.json").read_text())["history"] for run in (*same, tmp_path / "alone")]
    losses = [[(epoch["train/loss"], epoch["val/loss"]) for epoch in history] for history in histories]
    assert losses[0] == losses[1]


def test_two_machines_train_one_run_which_goes_on_after_a_requeue(cluster, command, tmp_path):
    arguments = (*LONG, "hydra.launcher.nodes=2", "hydra.launcher.cpus=1")
    study = tmp_path / "outputs" / "s"
    outcome = command(*arguments)
    assert outcome.status == 0, outcome.err
    (task,) = queued()
    processes.wait_for(lambda: epochs_of(study / "run") or not queued())
    slurm("scancel", "--batch", "--signal=USR1", task)
    begin_again(task)
    wait_for_the_end(study)
    result = json.loads((study / "run" / "results.json").read_text())
    assert (result["status"], result["world_size"]) == ("finished", 2)
    assert [metrics["epoch"] for metrics in result["history"]] == list(range(6))
    assert "resumed in epoch" in logs_of(study)


def test_what_a_value_says_reaches_slurm_as_it_is_and_no_shell(cluster, tmp_path, monkeypatch):
    comment = "a 'b' \"c\" $(touch pwned) `touch pwned` \\ #d"
    typed = comment.replace("'", "\\'")
    folder = tmp_path / "it's $HOME 100%"
    folder.mkdir()
    given = command_in(folder, monkeypatch)
    arguments = (*LONG, "trainer.epochs=1", f"hydra.launcher.extra=['--comment={typed}','--hold']")
    outcome = given(*arguments)
    assert outcome.status == 0, outcome.err
    (task,) = queued()
    assert f"   Comment={comment} \n" in slurm("scontrol", "show", "job", task)
    slurm("scontrol", "release", task)
    wait_for_the_end(folder / "outputs" / "s")
    assert len(list(folder.glob("outputs/s/.slurm/*_0.log"))) == 1
    assert (folder / "outputs/s/run/results.json").exists()
    assert not list(tmp_path.rglob("pwned"))
    outcome = given(*arguments, "study=t", "hydra.launcher.partition=nowhere")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert "invalid partition specified: nowhere" in outcome.err
    assert not (folder / "outputs" / "t").exists()


def test_a_worker_whose_python_is_killed_is_seen_and_its_run_goes_on_by_the_same_command(cluster, command, tmp_path):
    study = tmp_path / "outputs" / "s"
    assert command(*LONG).status == 0
    processes.wait_for(lambda: len(epochs_of(study / "run")) > 1 or not queued())
    for stat in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(tmp_path).encode() in os.readlink(stat.parent / "cwd").encode() and b"iolaus" in stat.read_bytes():
                os.kill(int(stat.parent.name), signal.SIGKILL)
    wait_for_the_end(study)
    assert not (study / "run" / "results.json").exists()
    assert command(*LONG).status == 0
    wait_for_the_end(study)
    assert epochs_of(study / "run") == list(range(6))
    assert "resumed in epoch" in logs_of(study)
