"""Limits of time end a run or a study as it can be continued, and runs whose processes are lost are taken up again."""

import math
import threading
import time

import pytest
from conftest import TINY
from hydra.core.utils import JobReturn, JobStatus

from iolaus import loop
from iolaus.errors import RunFailed
from iolaus.files.atomic import read_json, write_json
from iolaus.files.run_folder import RunFolder
from iolaus.machine.crew import RankLost
from iolaus.studies import grid

GRID = (*TINY, "-m", "trainer.epochs=2", "seed=0,1,2")


@pytest.fixture
def hour_after(monkeypatch):
    """`hour_after(step)`: an hour is over in the step of this number, counted over all runs."""
    train_step, steps, clock = loop.train_step, [], time.time

    def let_pass(number):
        def slow_step(*args, **kwargs):
            steps.append(1)
            if len(steps) == number:
                monkeypatch.setattr(time, "time", lambda: clock() + 3600)
            return train_step(*args, **kwargs)

        monkeypatch.setattr(loop, "train_step", slow_step)

    return let_pass


def statuses(outcome):
    return [read_json(run / "results.json").get("status") for run in outcome.runs]


def test_after_the_timeout_of_a_grid_no_run_begins_and_the_same_command_goes_on(command, hour_after):
    hour_after(3)
    cut = command(*GRID, "hydra.sweeper.timeout=60")
    assert cut.status == 0, cut.err
    assert "hydra.sweeper.timeout=60: 1 of 3 runs did not begin; the same command goes on" in cut.out + cut.err
    assert statuses(cut) == ["finished"] * 2
    whole = command(*GRID, "hydra.sweeper.timeout=60")
    assert (whole.status, statuses(whole)) == (0, ["finished"] * 3), whole.err
    assert "2 of 3 runs are finished already" in whole.out + whole.err


def test_the_minutes_of_a_grid_end_its_run_and_the_grid_and_another_limit_is_another_run_of_neither(
    command, hour_after
):
    hour_after(3)  # in the first epoch of the second run
    cut = command(*GRID, "trainer.max_minutes=60")
    assert (cut.status, statuses(cut)) == (142, ["finished", None]), cut.err
    assert "stopped in epoch" in cut.out + cut.err
    assert "continue with: the same command" in cut.out + cut.err
    whole = command(*GRID, "trainer.max_minutes=30")
    assert (whole.status, statuses(whole)) == (0, ["finished"] * 3), whole.err
    assert len(list((whole.cwd / "outputs").iterdir())) == 1


class UncompletedJobError(RuntimeError):
    """Of the name that submitit gives the loss of a job."""


class Launcher:
    """Launches a run that comes to these ends, one after the other; each attempt may leave a checkpoint."""

    def __init__(self, folder, *ends, progress=False):
        self.folder, self.ends, self.progress = folder, list(ends), progress

    def launch(self, jobs, initial_job_idx):
        end = self.ends.pop(0)
        if self.progress:
            self.folder.last.write_text(str(len(self.ends)))
        if isinstance(end, UncompletedJobError):
            raise end
        if end == 1.0:
            write_json(self.folder.results_file, {"status": "finished"})
        job = JobReturn(status=JobStatus.FAILED if isinstance(end, Exception) else JobStatus.COMPLETED)
        job.return_value = end
        return [job]


def run_to_its_end(launcher):
    sweeper = grid.GridSweeper()
    sweeper.max_minutes, sweeper.launcher, sweeper.run_folders = None, launcher, {0: launcher.folder}
    return sweeper._run_to_its_end(0, ["seed=0"], threading.Event())


def test_a_run_whose_job_is_lost_goes_on_in_another_and_one_that_never_saves_fails_alone(tmp_path):
    folder, lost = RunFolder(tmp_path), (UncompletedJobError("gone"), math.nan, RankLost("rank 1 was killed"))
    launcher = Launcher(folder, *lost, *lost, 1.0, progress=True)
    assert run_to_its_end(launcher)._return_value == 1.0
    assert launcher.ends == []
    folder.results_file.unlink()
    job = run_to_its_end(Launcher(folder, *lost))
    assert job.status == JobStatus.FAILED
    assert isinstance(job._return_value, RunFailed)
    assert "its process was lost 3 times" in str(job._return_value)


def test_a_search_whose_time_is_over_before_its_first_trial_leaves_no_study(command):
    outcome = command(*TINY, "-m", "hydra/sweeper=optuna", "lr=interval(0.1,0.2)", "hydra.sweeper.timeout=1e-9")
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1] == "iolaus: hydra/sweeper=optuna: no trial has finished"
    assert not (outcome.cwd / "outputs").exists()
