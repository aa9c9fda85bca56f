"""Joblib's worker processes, which a search's threads share: told from a job's error, ended with the sweep."""

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import Any

JOBLIB = "hydra_plugins.hydra_joblib_launcher."
IDLE_SECONDS = 30  # after which a worker without work ends: one whose sweeper was killed, too
PATIENCE_SECONDS = 15.0  # for the runs to write their checkpoints, after Ctrl-C


def is_joblib(config: Any) -> bool:
    """Whether a composed configuration's launcher is joblib's."""
    return str(config.hydra.launcher._target_).startswith(JOBLIB)


def one_run_per_gpu(launcher: Any, config: Any) -> None:
    """Let joblib's n_jobs=-1, which is a process for each core, be one for each GPU where runs take one (gpus.py)."""
    if is_joblib(config) and launcher.joblib.get("n_jobs") == -1 and config.trainer.device in ("auto", "cuda"):
        from iolaus import gpus

        if gpus.count():
            launcher.joblib["n_jobs"] = gpus.count()


def is_a_dead_worker(error: Exception) -> bool:
    """Whether a launcher's pool has lost a process: killed, or out of memory. It takes the others with it."""
    closed = isinstance(error, RuntimeError) and "executor" in str(error).lower() and "shutdown" in str(error).lower()
    return closed or type(error).__name__ in ("TerminatedWorkerError", "BrokenProcessPool")


def end_quietly(task_function: Callable[[Any], Any], composed: Any) -> Any:
    """A worker process's job. One that a signal ends has no result, and takes no other worker along."""
    try:
        return task_function(composed)
    except (SystemExit, KeyboardInterrupt):
        return math.nan


def end_workers(threads: list[threading.Thread], failure: BaseException | None) -> None:
    """End the worker processes of a sweep, and the threads that wait for them.

    Where the sweep ends by an error, they are killed after a while. Ctrl-C has reached them, too: each writes its
    checkpoint, which takes a step. A second one ends them at once.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    with contextlib.suppress(KeyboardInterrupt):
        while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
            time.sleep(0.05)
    from joblib.externals.loky import reusable_executor

    if (executor := reusable_executor._executor) is not None:
        executor.terminate(kill_workers=failure is not None)
    for thread in threads:
        thread.join()
