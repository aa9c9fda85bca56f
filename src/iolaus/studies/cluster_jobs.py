"""Launchers that train each run in a job of its own, submitit's and Ray's: a thread here waits for each job.

A job that is lost (killed, preempted, out of time) costs its run one more job, and not the sweep its end.
"""

import functools
import logging
import math
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from iolaus.errors import ConfigError
from iolaus.machine.signals import is_stop
from iolaus.studies.compat import note_ray_tasks, note_submitit_jobs
from iolaus.studies.limits import Clock
from iolaus.studies.threads import CHECKPOINT_SECONDS, EndJobs, wait_for_threads

if TYPE_CHECKING:
    from hydra.types import TaskFunction
    from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher  # as submitit's, as far as is needed here
    from omegaconf import DictConfig

SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
RAY = "hydra_plugins.hydra_ray_launcher.ray_launcher"
MOST_THREADS = 256  # so many jobs wait for Ray at once


def trains_in_jobs(config: "DictConfig") -> bool:
    """Whether a composed configuration's launcher is one of these. Raises ConfigError for what it can't do."""
    launcher = config.hydra.launcher
    if not str(launcher._target_).startswith((f"{SUBMITIT}.", f"{RAY}.")):
        return False
    for key in ("nodes", "tasks_per_node"):
        if launcher.get(key) not in (None, 1):
            hint = "1; a run on several GPUs is one task: hydra.launcher.gpus_per_node=N trainer.devices=N"
            raise ConfigError(f"hydra.launcher.{key}={launcher.get(key)}: allowed: {hint}")
    return True


def most_jobs(config: "DictConfig") -> int:
    """How many jobs of a grid are with the launcher at once if the user does not say: Slurm and Ray have queues."""
    launcher = config.hydra.launcher
    if "array_parallelism" in launcher:
        return int(launcher.array_parallelism)
    if "submitit_folder" not in launcher:
        return MOST_THREADS
    from joblib import cpu_count

    return int(cpu_count())


def configure_jobs(launcher: "RayLauncher", config: "DictConfig", n_jobs: int) -> EndJobs:
    """Set up a launcher for `n_jobs` threads that launch one run each. Returns what ends its jobs.

    Each run that is at work gets a signal, and ends after its step, with a checkpoint.
    """
    assert launcher.task_function is not None
    launcher.task_function = functools.partial(run_in_job, launcher.task_function)
    module = str(config.hydra.launcher._target_).rpartition(".")[0]
    logging.getLogger(module.rpartition(".")[0]).setLevel(logging.WARNING)  # lines for each run
    if module == RAY:
        start_ray(launcher)
        return functools.partial(stop_jobs, end_ray_tasks, note_ray_tasks())
    if config.hydra.launcher._target_ == f"{SUBMITIT}.LocalLauncher":
        from joblib import cpu_count

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(cpu_count()) // n_jobs)))  # for the jobs
    return functools.partial(stop_jobs, end_submitit_jobs, note_submitit_jobs())


def stop_jobs(end: Callable[[list[Any]], None], jobs: list[Any], threads: list[threading.Thread], early: bool) -> None:
    """End the jobs of a sweep that ends early, and wait for their checkpoints; a second Ctrl-C does not wait."""
    if early:
        with suppress(KeyboardInterrupt, SystemExit):
            end(jobs)
            wait_for_threads(threads, CHECKPOINT_SECONDS)
    jobs.clear()  # at the exit of Python, submitit's can't be deleted without a complaint


def start_ray(launcher: "RayLauncher") -> None:
    """Begin with Ray once, before the threads do; its lines, and those of the runs, are kept out of the terminal."""
    import ray
    from omegaconf import OmegaConf

    if not ray.is_initialized():
        given = cast("dict[str, Any]", OmegaConf.to_container(launcher.ray_cfg.init, resolve=True))
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if given.get("address") is None and "RAY_ADDRESS" not in os.environ:  # Ray on this machine, for this command
            quiet["include_dashboard"] = False
        ray.init(**(quiet | given))


def end_ray_tasks(tasks: list[Any]) -> None:
    """Let Ray interrupt all tasks, as Ctrl-C does."""
    import ray

    for task in tasks:
        with suppress(Exception):  # its worker is gone, or its node
            ray.cancel(task)


def end_submitit_jobs(jobs: list[Any]) -> None:
    """Send all jobs SIGTERM; those that wait in Slurm's queue do not begin."""
    import submitit

    for job in jobs:
        if isinstance(job, submitit.LocalJob):
            if not job.done():  # submitit's own way gives the run a second
                os.kill(int(job.job_id), signal.SIGTERM)
        else:
            job.cancel(check=False)


def run_in_job(task_function: "TaskFunction", config: "DictConfig") -> object:
    """Train a run in a job, which counts its own minutes. A run that a signal ends has the result NaN.

    Other exits are the launcher's, such as that of submitit's handler when it has submitted the job again.
    """
    Clock.instance().start()
    try:
        return task_function(config)
    except ConfigError as error:
        error.told = False  # it stands in a file of the job's, and is for the sweeper to tell
        raise
    except KeyboardInterrupt:
        return math.nan
    except Exception as error:
        if type(error).__name__ != "UncompletedJobError":  # of submitit's handler, which submits no more
            raise
        return math.nan
    except SystemExit as end:
        if not is_stop(end.code):
            raise
        return math.nan
