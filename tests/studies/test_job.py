"""A job knows its place in its sweep; a single run has none, and is no trial."""

from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from iolaus.files.run_folder import RunFolder
from iolaus.studies.job import Job
from iolaus.studies.trial import Pruning, current_trial


@pytest.fixture
def start_job():
    """Compose a configuration as Hydra does when it launches a job."""
    before = HydraConfig.instance().cfg

    def start(*overrides):
        with initialize_config_dir(str(ROOT / "conf")):
            config = compose("config", ["hydra.runtime.output_dir=/o/s/3", *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return Job.from_hydra()

    yield start
    HydraConfig.instance().cfg = before


def test_a_job_of_a_sweep_has_a_number_and_a_study(start_job):
    job = start_job("hydra.mode=MULTIRUN", "hydra.job.num=3", "hydra.sweep.dir=/o/s", "seed=4")
    assert (job.folder, job.sweeping, job.number, job.study) == (RunFolder(Path("/o/s/3")), True, 3, "s")
    assert job.overrides == ["seed=4"]
    assert current_trial(job) is None  # a grid has no trials


def test_a_single_run_has_none_and_is_no_trial(start_job):
    job = start_job("hydra.mode=RUN", "hydra/sweeper=optuna")
    assert (job.folder, job.sweeping, job.number, job.study) == (RunFolder(Path("/o/s/3")), False, None, None)
    assert current_trial(job) is None


def test_without_a_trial_nothing_is_pruned():
    pruning = Pruning(None, "val/loss")
    history = [{"val/loss": 1e9}]
    pruning.report(history)
    assert not pruning.should_stop(history)
    assert not pruning.pruned
