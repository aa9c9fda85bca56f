"""Joblib's worker processes, several runs at once: each thread here keeps one of them busy, one run at a time.

So a run begins when another ends, a killed worker costs the runs of its pool one more attempt, and the main thread is
free to answer Ctrl-C.
"""

import contextlib
import functools
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from iolaus.command import can_redraw
from iolaus.errors import ConfigError
from iolaus.machine.parent import at_work, watch_parent
from iolaus.machine.process import collect_rarely
from iolaus.machine.signals import WARNINGS, raise_exit
from iolaus.studies.compat import serialise_pool_starts, worker_ids, worker_pool
from iolaus.studies.threads import CHECKPOINT_SECONDS, wait_for_threads

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from hydra.types import TaskFunction
    from omegaconf import DictConfig

JOBLIB = "hydra_plugins.hydra_joblib_launcher"
IDLE_SECONDS = 30  # after which a worker without work ends, also one whose sweeper was killed


def is_joblib(config: "DictConfig") -> bool:
    """Whether a composed configuration's launcher is joblib's. Raises ConfigError for a backend that does not fit."""
    launcher = config.hydra.launcher
    found = str(launcher._target_).startswith(f"{JOBLIB}.")
    if found and launcher.backend != "loky":
        raise ConfigError(f"hydra.launcher.backend={launcher.backend}: allowed: loky, whose workers outlive a run")
    return found


def resolve_n_jobs(config: "DictConfig") -> int:
    """Joblib's n_jobs; -1 is one job for each GPU if the runs take one (machine/gpus.py), else one for each core.

    Runs of several devices are fewer: four of `trainer.devices=2` on eight GPUs.
    """
    n_jobs: int = config.hydra.launcher.n_jobs
    if n_jobs == 0:
        raise ConfigError("hydra.launcher.n_jobs=0: must be 1 or more, or -1 for one run for each GPU or core")
    if n_jobs == -1 and config.trainer.device in ("auto", "cuda"):
        from iolaus.machine import gpus

        if gpus.count():
            return max(1, gpus.count() // devices_of_a_run(config))
    from joblib import effective_n_jobs

    jobs = int(effective_n_jobs(n_jobs))
    return max(1, jobs // devices_of_a_run(config)) if n_jobs == -1 else jobs


def devices_of_a_run(config: "DictConfig") -> int:
    """How many devices each run takes; `auto` is all of them."""
    devices = config.trainer.devices
    return devices if isinstance(devices, int) else sys.maxsize if devices == "auto" else 1


def configure_launcher(launcher: "Launcher", n_jobs: int) -> None:
    """Set up joblib's launcher for a sweep whose `n_jobs` threads launch one run each.

    Not in the configuration: the jobs compare theirs with it.
    """
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
    from joblib import cpu_count

    assert isinstance(launcher, JoblibLauncher)
    assert launcher.task_function is not None
    serialise_pool_starts()
    # with n_jobs=1 joblib would run them in this process
    launcher.joblib |= {"n_jobs": max(2, n_jobs), "idle_worker_timeout": IDLE_SECONDS}
    launcher.joblib |= {"initializer": watch_parent, "initargs": (os.getpid(),)}
    if "OMP_NUM_THREADS" not in os.environ and launcher.joblib.get("inner_max_num_threads") is None:
        launcher.joblib["inner_max_num_threads"] = max(1, cpu_count() // n_jobs)
    launcher.task_function = functools.partial(run_in_worker, launcher.task_function, os.getpid())
    logging.getLogger(JOBLIB).setLevel(logging.WARNING)  # it logs three lines for each run


def run_in_worker(task_function: "TaskFunction", sweeper: int, config: "DictConfig") -> object:
    """A worker process's job. A run that a signal ends has the result NaN; the process lives on.

    If the process ended, the pool would lose the other workers too. sweeper: the id of the process that waits for the
    result. When that has been killed, nobody empties the pipe of results, and the worker would hang there: it exits.
    """
    for number in (signal.SIGTERM, *WARNINGS):
        signal.signal(number, raise_exit)  # until the run has its own handler
    at_work.set()
    collect_rarely()
    if not (redrawn := can_redraw(sys.stdout)):
        name_lines(str(HydraConfig.get().sweep.subdir))
    try:
        with silence_terminal() if redrawn else contextlib.nullcontext():
            return task_function(config)
    except (SystemExit, KeyboardInterrupt):
        return math.nan
    finally:
        at_work.clear()
        for number in (signal.SIGTERM, *WARNINGS):
            signal.signal(number, signal.SIG_IGN)
        if os.getppid() != sweeper:
            os._exit(0)


@contextlib.contextmanager
def silence_terminal() -> Iterator[None]:
    """Write nothing to the terminal, which shows the study's table (watch.py); run.log has it all."""
    for handler in list(logging.getLogger().handlers):
        if type(handler) is logging.StreamHandler:
            logging.getLogger().removeHandler(handler)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def name_lines(run: str) -> None:
    """Begin each line of the log outside of run.log with the run's name: several runs write there at once."""
    form = logging.Formatter(run.replace("%", "%%") + ": %(message)s")
    for handler in logging.getLogger().handlers:  # Hydra makes them anew for each run
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(form)


def end_workers(threads: list[threading.Thread], kill: bool) -> None:
    """End the worker processes of a sweep, and the threads that wait for them.

    kill: the sweep ends early. Each worker gets SIGTERM and writes its checkpoint, which takes a step; those that do
    not end are killed after a while, or by a second Ctrl-C.
    """
    pool = worker_pool()
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        if kill and pool is not None:
            for worker in worker_ids(pool):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGTERM)
        wait_for_threads(threads, CHECKPOINT_SECONDS)
    if pool is not None:
        pool.terminate(kill_workers=kill)
    for thread in threads:
        thread.join()
