"""Joblib's worker processes, several runs at once: one thread here keeps one of them busy, with a run at a time.

So a run begins when another ends, a worker that is killed costs its pool's runs one more attempt, and Ctrl-C finds
the main thread at no other work.
"""

import contextlib
import functools
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from iolaus.errors import ConfigError

log = logging.getLogger("iolaus")
JOBLIB = "hydra_plugins.hydra_joblib_launcher."
IDLE_SECONDS = 30  # after which a worker without work ends: one whose sweeper was killed, too
PATIENCE_SECONDS = 15.0  # for the runs to write their checkpoints, after Ctrl-C
LOOK_SECONDS = 1.0


def is_joblib(config: Any) -> bool:
    """Whether a composed configuration's launcher is joblib's. Raises ConfigError for a backend that does not fit."""
    launcher = config.hydra.launcher
    found = str(launcher._target_).startswith(JOBLIB)
    if found and launcher.backend != "loky":
        raise ConfigError(f"hydra.launcher.backend={launcher.backend}: allowed: loky, whose workers outlive a run")
    return found


def runs_at_once(config: Any) -> int:
    """Joblib's n_jobs. -1 is one for each GPU where the runs take one (gpus.py), else one for each core."""
    wanted = config.hydra.launcher.n_jobs
    if wanted == 0:
        raise ConfigError("hydra.launcher.n_jobs=0: must be 1 or more, or -1 for one run for each GPU or core")
    if wanted == -1 and config.trainer.device in ("auto", "cuda"):
        from iolaus import gpus

        if gpus.count():
            return gpus.count()
    from joblib import effective_n_jobs

    return effective_n_jobs(wanted)


def prepare(launcher: Any, n_jobs: int) -> None:
    """Tell joblib's launcher of a sweep, which is given one run by each thread, how many there are at once.

    Not in the configuration: the jobs compare theirs with it.
    """
    from joblib import cpu_count

    # with n_jobs=1 joblib would run them in this process
    launcher.joblib |= {"n_jobs": max(2, n_jobs), "idle_worker_timeout": IDLE_SECONDS}
    if "OMP_NUM_THREADS" not in os.environ and launcher.joblib.get("inner_max_num_threads") is None:
        launcher.joblib["inner_max_num_threads"] = max(1, cpu_count() // n_jobs)
    launcher.task_function = functools.partial(one_job, launcher.task_function, os.getpid())
    logging.getLogger(JOBLIB + "_core").setLevel(logging.WARNING)  # three lines for each run


def one_job(task_function: Callable[[Any], Any], sweeper: int, composed: Any) -> Any:
    """A worker process's job. One that a signal ends has no result; the process lives on, as its end is the others'.

    sweeper: the process that waits for the result. When it has been killed, nobody empties the pipe that the result
    goes into, and the worker would hang there.
    """
    signal.signal(signal.SIGTERM, terminate)  # until the run has its own
    try:
        with quietly() if sys.stdout.isatty() else contextlib.nullcontext():
            return task_function(composed)
    except (SystemExit, KeyboardInterrupt):
        return math.nan
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.getppid() != sweeper:
            os._exit(0)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Write nothing to the terminal, which shows the study's table (watch.py); run.log has it all."""
    for handler in list(logging.getLogger().handlers):
        if type(handler) is logging.StreamHandler:
            logging.getLogger().removeHandler(handler)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def terminate(*_: Any) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def is_a_dead_worker(error: Exception) -> bool:
    """Whether a launcher's pool has lost a process: killed, or out of memory. It takes the others with it."""
    closed = isinstance(error, RuntimeError) and "executor" in str(error).lower() and "shutdown" in str(error).lower()
    return closed or type(error).__name__ in ("TerminatedWorkerError", "BrokenProcessPool")


def keep_busy(work: Callable[[], None], n_jobs: int, failures: list[BaseException], folder: Path, total: int) -> None:
    """Call `work()` in `n_jobs` threads, each of which launches one run after the other, while `failures` is empty.

    What one of them raises, Ctrl-C and SIGTERM are put into `failures` and end them all; the first is raised.
    A terminal shows the table of the study in `folder`, which is to have `total` runs, meanwhile.
    """

    from iolaus import watch

    def thread() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, name=f"runs-{i}") for i in range(n_jobs)]
    for started in threads:
        started.start()
    with sigterm_raises(), watch.live(folder, total) as look:
        try:
            while any(t.is_alive() for t in threads):
                look()
                wait(threads, LOOK_SECONDS)
        except BaseException as error:
            failures.append(error)
            log.warning("ending each run after its step, with a checkpoint; once more to end at once")
        finally:
            end_workers(threads, bool(failures))
    if failures:
        if not isinstance(failures[0], Exception):  # a signal
            log.warning("stopped; the same command goes on")
        raise failures[0]


def wait(threads: list[threading.Thread], seconds: float) -> None:
    """Until all threads have ended, at most so long."""
    deadline = time.monotonic() + seconds
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        time.sleep(0.05)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM ends the sweep as Ctrl-C does, with SystemExit(143)."""
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_workers(threads: list[threading.Thread], failed: bool) -> None:
    """End the worker processes of a sweep, and the threads that wait for them.

    Where the sweep ends early, each worker is told to: it writes its checkpoint, which takes a step. Those that do not
    end are killed after a while, or by a second Ctrl-C.
    """
    from joblib.externals.loky import reusable_executor

    executor = reusable_executor._executor
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        if failed and executor is not None:
            for process in list((executor._processes or {}).values()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
        wait(threads, PATIENCE_SECONDS)
    if executor is not None:
        executor.terminate(kill_workers=failed)
    for thread in threads:
        thread.join()
