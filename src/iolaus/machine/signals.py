"""Ctrl-C, SIGTERM and a cluster's warnings: a run ends after its step, with a checkpoint; a sweep ends its runs."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

from iolaus.errors import RunFailed

log = logging.getLogger(__name__)
# Of Slurm, submitit and others: the job's time ends soon, or its place is needed.
WARNINGS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
PAUSE = 1  # no signal of ours: a checkpoint is due, and the run goes on
ALARM = 14  # SIGALRM, which Windows lacks: a run whose minutes are over ends as by an alarm clock
ONE_STOP_SECONDS = 0.5  # a terminal, a sweeper and a cluster may each pass on the same wish to stop


@contextlib.contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and warnings, for the loop to end after the step at hand; a later one ends at once."""
    received: list[int] = []
    first = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if received:
            if time.monotonic() - first < ONE_STOP_SECONDS:
                return
            raise KeyboardInterrupt
        first = time.monotonic()
        received.append(number)
        log.warning("ending after this step, with a checkpoint; once more to end at once, at the checkpoint before")

    with handle((signal.SIGINT, signal.SIGTERM, *WARNINGS), note):
        yield received


@contextlib.contextmanager
def handle(numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within it a handler answers these signals; then those that were there."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Within it Ctrl-C, SIGTERM and warnings wait: an import that one of them cuts off can end as an ImportError."""
    waiting: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        with handle((signal.SIGINT, signal.SIGTERM, *WARNINGS), lambda number, _: waiting.append(number)):
            yield
    finally:
        for number in waiting[:1]:
            signal.raise_signal(number)


def raise_exit(number: int, frame: FrameType | None) -> NoReturn:
    """Handle a signal by SystemExit with the status of a process that it ended (143 for SIGTERM)."""
    raise SystemExit(128 + number)


def raise_stop(number: int, line: str) -> NoReturn:
    """Raise SystemExit for a run that a signal has ended, or its time (ALARM); then its cause is a RunFailed, told."""
    log.warning("%s", line)
    stop = RunFailed(line)
    stop.told = True
    raise SystemExit(128 + number) from (stop if number == ALARM else None)


def is_stop(status: object) -> bool:
    """Whether an exit status is that of a run which a signal has ended, or its time."""
    return isinstance(status, int) and status - 128 in (signal.SIGINT, signal.SIGTERM, ALARM, *WARNINGS)


def pass_on(status: object) -> None:
    """Let the handler that a warning would have met before the run answer it, now that all is saved.

    status: the exit status of the run that the signal has ended. submitit's handler submits the job again.
    """
    for number in WARNINGS:
        if status == 128 + number and callable(signal.getsignal(number)):
            signal.raise_signal(number)


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and warnings raise SystemExit (143 for SIGTERM) in the main thread, as Ctrl-C KeyboardInterrupt."""
    with handle((signal.SIGTERM, *WARNINGS), raise_exit):
        yield
