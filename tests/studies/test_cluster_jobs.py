"""Runs in jobs of submitit's and Ray's: several at once, and one that is lost goes on in another job."""

import contextlib
import json
import math
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import TINY, alone
from omegaconf import OmegaConf

from iolaus.errors import ConfigError
from iolaus.studies import cluster_jobs, several
from iolaus.studies.limits import Clock

LONG = (*TINY, "dataset.train_count=60", "trainer.epochs=40", "trainer.monitor_every=0", "trainer.device=cpu")


def configured(target, n_jobs=1, **keys):
    launcher = {"_target_": f"hydra_plugins.{target}", **keys}
    return OmegaConf.create({"hydra": {"launcher": launcher}, "trainer": {"devices": 1, "max_minutes": 5}})


LOCAL = configured("hydra_submitit_launcher.submitit_launcher.LocalLauncher", submitit_folder="x", tasks_per_node=1)
SLURM = configured(
    "hydra_submitit_launcher.submitit_launcher.SlurmLauncher", submitit_folder="x", array_parallelism=9, nodes=1
)
RAY = configured("hydra_ray_launcher.ray_launcher.RayLauncher", ray={"init": {}})
BASIC = configured("basic.BasicLauncher")


def test_n_jobs_is_the_users_else_what_the_launcher_can_keep_in_its_queue():
    assert [several.runs_at_once(config, 3, None) for config in (LOCAL, SLURM, RAY)] == [3, 3, 3]
    assert [several.runs_at_once(config, None, None) for config in (SLURM, RAY)] == [9, cluster_jobs.MOST_THREADS]
    assert [several.runs_at_once(config, None, 1) for config in (LOCAL, SLURM, RAY, BASIC)] == [1, 1, 1, None]
    with pytest.raises(ConfigError, match=r"n_jobs=2: the basic launcher runs one at a time"):
        several.runs_at_once(BASIC, 2, None)
    with pytest.raises(ConfigError, match=r"n_jobs=0: must be"):
        several.runs_at_once(RAY, 0, None)


def test_several_tasks_for_one_run_are_refused_as_each_would_train_it():
    SLURM.hydra.launcher.nodes = 2
    with pytest.raises(ConfigError, match=r"hydra.launcher.nodes=2: allowed: 1; .*trainer.devices=N"):
        cluster_jobs.trains_in_jobs(SLURM)
    SLURM.hydra.launcher.nodes = 1


def test_the_minutes_of_a_command_are_those_of_runs_on_this_machine():
    assert [several.limit_of_command(config) for config in (BASIC, LOCAL, RAY)] == [5, None, None]


def test_a_job_ends_without_a_result_when_a_signal_has_ended_its_run_and_lets_other_exits_be():
    def ending_in(error):
        def task(config):
            raise error

        return cluster_jobs.run_in_job(task, OmegaConf.create())

    Clock.instance().began = 0.0
    for status in (130, 142, 143, 128 + signal.SIGUSR2):
        assert math.isnan(ending_in(SystemExit(status)))
    assert time.time() - Clock.instance().began < 60
    assert math.isnan(ending_in(type("UncompletedJobError", (Exception,), {})()))  # out of time for the last time
    with pytest.raises(ZeroDivisionError):
        ending_in(ZeroDivisionError())
    for status in (1, 144, -1):  # 144 is what submitit's handler exits with to be started again
        with pytest.raises(SystemExit):
            ending_in(SystemExit(status))
    error = ConfigError("wrong")
    error.told = True
    with pytest.raises(ConfigError):
        ending_in(error)
    assert not error.told


def test_a_sweep_that_ends_early_ends_its_jobs_and_keeps_none():
    ended, jobs = [], [1, 2]
    cluster_jobs.stop_jobs(ended.extend, jobs, [], early=True)
    assert (ended, jobs) == ([1, 2], [])
    cluster_jobs.stop_jobs(ended.extend, jobs, [], early=False)
    assert ended == [1, 2]


def processes_with(words):
    """The ids of the processes whose command holds all the words."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if all(word in command for word in words):
                found.append(int(file.parent.name))
    return found


def kill_when_saved(study, words, killed):
    """Kill one of the processes with these words when each of two runs of the study has its first checkpoint."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if len(list(study.glob("*/last.pt"))) == 2 and (found := processes_with(words)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            return
        time.sleep(0.01)


LAUNCHERS = {
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", ["submitit.core._submit", "outputs/s/"]),
    "ray": ("hydra_plugins.hydra_ray_launcher", ["ray::_run_job"]),
}


SWEEPS = {
    "grid": ("seed=0,1",),
    "search": ("hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "seed=choice(0,1)"),
}


@pytest.fixture
def _ray_ends():
    """Else the next command of this process would have the workers of this one, in its folder."""
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@alone
@pytest.mark.usefixtures("_ray_ends")
@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_runs_at_once_come_to_their_end_though_a_process_is_killed(command, tmp_path, launcher, sweep):
    package, words = LAUNCHERS[launcher]
    pytest.importorskip(package, reason=f"the extra is not installed: pip install -e '.[{launcher.partition('_')[0]}]'")
    killed = []
    killer = threading.Thread(target=kill_when_saved, args=(tmp_path / "outputs" / "s", words, killed))
    killer.start()
    given = ("-m", "study=s", f"hydra/launcher={launcher}", "hydra.sweeper.n_jobs=2")
    outcome = command(*LONG, *given, *SWEEPS[sweep])
    killer.join()
    assert outcome.status == 0, outcome.err
    assert len(killed) == 1
    results = [json.loads((run / "results.json").read_text()) for run in outcome.runs]
    assert sorted(result["config"]["seed"] for result in results) == [0, 1]
    assert [result["status"] for result in results] == ["finished"] * 2
    assert [[row["epoch"] for row in result["history"]] for result in results] == [list(range(40))] * 2
    logs = "".join((run / "run.log").read_text() for run in outcome.runs)
    assert len(re.findall("resumed in epoch", logs)) == 1, logs
    for run in outcome.runs:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [metrics["epoch"] for metrics in lines] == list(range(40))  # none is lost, none is there twice
    assert not [line for line in (outcome.out + outcome.err).splitlines() if "submitit INFO" in line or "(pid=" in line]
