"""One job a run in a real Slurm, through submitit; and runs that outlast `--time`, under workers of our own as well."""

import json
import re
import time
from importlib.util import find_spec

import processes
import pytest
import real_slurm
from conftest import TINY, exhaustive
from real_slurm import begin_again, epochs_of, queued, slurm, state_of

NO_SUBMITIT = "the extra is not installed: pip install -e '.[submitit]'"
pytestmark = [*real_slurm.MARKS, pytest.mark.skipif(find_spec("submitit") is None, reason=NO_SUBMITIT)]

STEPS, EPOCHS = 100, 6
SUBMITIT = ("hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=2")
BASE = (*TINY, "-m", "trainer.monitor_every=0", "trainer.device=cpu")
LONG = (*BASE, "study=s", "dataset.train_count=2000", "model.widths=[16]", f"trainer.epochs={EPOCHS}")
VARIED = {
    "grid": ("seed=0,1,2,3",),
    "search": ("hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "seed=choice(0,1,2,3)"),
}


def results_of(study):
    return [json.loads(path.read_text()) for path in sorted(study.glob("*/results.json"))]


def steps_resumed(study):
    """The steps after which the runs of a study went on."""
    logs = "".join(path.read_text() for path in study.glob("*/run.log"))
    return [int(step) for step in re.findall(r"resumed in epoch \d+, after step (\d+)", logs)]


def check_all_is_there_once(study, seeds, epochs):
    """Every run is finished, and none of its epochs is lost or done twice."""
    results = results_of(study)
    assert sorted((result["config"]["seed"], result["status"]) for result in results) == [
        (n, "finished") for n in seeds
    ]
    for path, result in zip(sorted(study.glob("*/results.json")), results, strict=True):
        told = re.findall(rf"epoch (\d+)/{epochs}: train", path.with_name("run.log").read_text())
        assert epochs_of(path.parent) == [one["epoch"] for one in result["history"]] == list(range(epochs))
        assert [int(number) for number in told] == list(range(1, epochs + 1))


def at_work(study):
    """The jobs that train, once two runs of the study that are not finished have an epoch."""
    runs = [run for run in study.glob("*") if epochs_of(run) and not (run / "results.json").exists()]
    jobs = [job for job in queued() if state_of(job) == "RUNNING"]
    return jobs if min(len(jobs), len(runs)) == 2 else None


@pytest.mark.parametrize("kind", VARIED)
def test_jobs_that_are_cancelled_warned_or_requeued_and_a_killed_command_lose_and_repeat_nothing(
    cluster, command, tmp_path, kind
):
    arguments, study = (*LONG, *SUBMITIT, *VARIED[kind]), tmp_path / "outputs" / "s"
    sweeper = processes.start(tmp_path, *arguments)
    warned, cancelled = processes.wait_for(lambda: at_work(study), sweeper)
    slurm("scancel", "--signal=USR2", warned)  # as before the end of its time: submitit lets Slurm queue it again
    slurm("scancel", cancelled)
    begin_again(warned)
    processes.wait_for(lambda: cancelled not in queued() and len(queued()) == 2, sweeper)  # another job in its place
    processes.wait_for(lambda: at_work(study), sweeper)
    processes.kill(sweeper)
    again = processes.start(tmp_path, *arguments)
    if jobs := at_work(study):
        slurm("scontrol", "requeue", jobs[0])  # as when another job takes the machine
        begin_again(jobs[0])
    again.join(300)
    output = (tmp_path / "output").read_text()
    assert again.exitcode == 0, output
    assert "Traceback" not in output
    check_all_is_there_once(study, range(4), EPOCHS)
    resumed = steps_resumed(study)
    assert len(resumed) >= 2, output
    assert any(step % STEPS for step in resumed), resumed
    alone_again = command(*LONG[: len(TINY)], *LONG[len(TINY) + 1 :], "seed=2", "hydra.run.dir=alone", "study=null")
    assert alone_again.status == 0, alone_again.err
    (same,) = (result for result in results_of(study) if result["config"]["seed"] == 2)
    whole = json.loads((tmp_path / "alone" / "results.json").read_text())
    losses = [[(one["train/loss"], one["val/loss"]) for one in result["history"]] for result in (same, whole)]
    assert losses[0] == losses[1]


SLOW = """import time, torch
class Slow(torch.nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))
    def forward(self, images):
        if self.training:
            time.sleep(0.25)
        return super().forward(images)
"""
WAYS = {
    "slurm": ("hydra/launcher=slurm", "hydra.launcher.jobs=1", "hydra.launcher.time=1",
              "hydra.launcher.grace_seconds=20"),
    "submitit": ("hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=1", "hydra.launcher.timeout_min=1",
                 "hydra.launcher.signal_delay_s=20"),
}  # fmt: skip


@exhaustive
def test_runs_that_take_longer_than_any_job_may_are_finished_in_several(cluster, tmp_path):
    """Four studies at once, each with a run of 40 seconds; Slurm, which looks each 30 s, leaves a job 10 to 40 s."""
    (tmp_path / "slow.py").write_text(SLOW)
    own = ("model=cnn", "model._target_=slow.Slow", "~model.widths", "~model.dropout", "trainer.epochs=10")
    varied = {"grid": ("seed=7",), "search": (*VARIED["search"][:2], "seed=choice(7)")}
    studies = {f"{way}-{kind}": (*WAYS[way], *varied[kind]) for way in WAYS for kind in varied}
    sweepers = [
        processes.start(tmp_path, *BASE, *own, "dataset.train_count=300", f"study={name}", *rest)
        for name, rest in studies.items()
    ]
    deadline = time.monotonic() + 500
    while queued() or any(sweeper.is_alive() for sweeper in sweepers):
        assert time.monotonic() < deadline, slurm("squeue") + (tmp_path / "output").read_text()
        for job in queued():  # a worker of ours that queues again
            if "BeginTime" in slurm("squeue", "-h", "-r", "-o", "%R", "-j", job):
                begin_again(job)
        time.sleep(0.5)
    assert [sweeper.exitcode for sweeper in sweepers] == [0] * 4, (tmp_path / "output").read_text()
    for name in studies:
        check_all_is_there_once(tmp_path / "outputs" / name, [7], 10)
    resumed = {name: steps_resumed(tmp_path / "outputs" / name) for name in studies}
    assert all(resumed.values()), resumed
    assert any(step % 15 for steps in resumed.values() for step in steps), resumed  # within an epoch
