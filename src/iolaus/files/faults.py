"""What a file system can do to a run: no space, no permission, a folder that is gone; one line with the way out."""

import errno
import functools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

WAYS_OUT = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EACCES: "make it readable and writable for you",
    errno.EPERM: "make it writable for you",
    errno.EROFS: "make it writable, or put outputs/ elsewhere (hydra.run.dir, hydra.sweep.dir)",
    errno.EIO: "look after the disk",
    errno.ESTALE: "mount the file system again",
}


def find_fault(error: BaseException) -> OSError | None:
    """The fault of the file system behind an error; None where it is none.

    torch.save on a full disk raises a RuntimeError ("unexpected pos"), whose context is the fault.
    """
    return next((link for link in chain_of(error) if isinstance(link, OSError) and is_fault(link)), None)


def drop_unwritable_lines(handlers: Iterable[logging.Handler]) -> None:
    """Let log handlers drop what a file system does not take: on a full disk run.log would fill the terminal.

    What can't be saved is told once, by the run. A faulty call of the log is shown as ever.
    """
    for handler in handlers:
        handler.handleError = functools.partial(drop_unwritable, handler.handleError)  # type: ignore[method-assign]


def drop_unwritable(show: Callable[[logging.LogRecord], None], record: logging.LogRecord) -> None:
    """What a handler does about a record that it could not write."""
    if not isinstance(sys.exception(), OSError):
        show(record)


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, then what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_fault(error: OSError) -> bool:
    """Whether the file system is to blame: a missing file is its fault only when the folder has gone with it."""
    if isinstance(error, FileNotFoundError):
        return isinstance(error.filename, str) and not Path(error.filename).parent.is_dir()
    return error.errno in WAYS_OUT


def explain_fault(error: BaseException, place: object, again: str) -> str | None:
    """The line for a fault of the file system; None for another error.

    place: named where the error names no file. again: how the user goes on when the fault is gone.
    """
    if (fault := find_fault(error)) is None:
        return None
    path = fault.filename if isinstance(fault.filename, str) else str(place)
    if isinstance(fault, FileNotFoundError):
        return f"{path}: can't be written, its folder has been removed; nothing of it can go on: start anew"
    return f"{path}: {fault.strerror}; {WAYS_OUT[fault.errno or 0]}, then {again}"
