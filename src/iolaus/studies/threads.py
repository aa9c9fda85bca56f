"""Several runs of a study at once: each of some threads launches one run after the other, and waits for its job.

A run whose job is lost goes on from its checkpoint in another.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from iolaus.files.layout import ENDED
from iolaus.files.locks import is_locked
from iolaus.files.run_folder import RunFolder
from iolaus.machine.crew import RankLost
from iolaus.machine.process import collect_as_usual
from iolaus.machine.signals import exit_on_signals
from iolaus.studies.compat import job_error

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

log = logging.getLogger(__name__)
EndJobs = Callable[[list[threading.Thread], bool], None]
CHECKPOINT_SECONDS = 15.0  # for the runs to write their checkpoints, after Ctrl-C
TABLE_SECONDS = 1.0  # between looks at the study's table
LOST_JOBS = (
    *("TerminatedWorkerError", "BrokenProcessPool"),  # joblib's, whose pool goes with the process
    *("UncompletedJobError", "FailedJobError"),  # submitit's
    *("WorkerCrashedError", "NodeDiedError", "OwnerDiedError", "RaySystemError"),  # Ray's
)


def work_in_threads(
    work: Callable[[], None], n_jobs: int, stopping: threading.Event, folder: Path, total: int, end_jobs: EndJobs
) -> None:
    """Call `work()` in `n_jobs` threads, each of which launches one run after the other until `stopping` is set.

    An error in one of them, or a signal to end, sets `stopping` and so ends them all; the first error is raised.
    Meanwhile a terminal shows the table of the study in `folder`, which is to have `total` runs. end_jobs: ends what
    the threads wait for; its second argument says whether jobs are still at work.
    """
    from iolaus.report.terminal import show_live

    collect_as_usual()  # no run is imported here, where the other processes are waited for
    failures: list[BaseException] = []

    def stop(error: BaseException) -> None:
        failures.append(error)
        stopping.set()

    def run_thread() -> None:
        try:
            work()
        except BaseException as error:
            stop(error)

    threads = [threading.Thread(target=run_thread, name=f"runs-{i}", daemon=True) for i in range(n_jobs)]
    for thread in threads:
        thread.start()
    with exit_on_signals(), show_live(folder, total) as look:
        try:
            while any(thread.is_alive() for thread in threads):
                look()
                wait_for_threads(threads, TABLE_SECONDS)
        except BaseException as error:
            stop(error)
            log.warning("ending each run after its step, with a checkpoint; once more to end at once")
        finally:
            end_jobs(threads, stopping.is_set())
    if failures:
        raise failures[0]


def wait_for_threads(threads: list[threading.Thread], seconds: float) -> None:
    """Wait until all threads have ended, at most so many seconds."""
    deadline = time.monotonic() + seconds
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        time.sleep(0.05)


def is_cut_off(job: "JobReturn", folder: RunFolder) -> bool:
    """Whether a job has ended before its run: a signal or a limit of time has ended it, or a process of it is gone."""
    if (error := job_error(job)) is not None:
        return is_job_loss(error)
    ended = isinstance(job.return_value, float) and not math.isnan(job.return_value)
    return not ended and folder.status() not in ENDED and not is_locked(folder.lock)  # by another process's sweep


def is_job_loss(error: BaseException) -> bool:
    """Whether a process of a job is lost: killed, preempted, out of memory, its machine gone."""
    closed = isinstance(error, RuntimeError) and "executor" in str(error).lower() and "shutdown" in str(error).lower()
    return closed or isinstance(error, RankLost) or type(error).__name__ in LOST_JOBS
