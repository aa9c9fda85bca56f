"""Locks that end with the process that holds them, however it ends: kill -9 leaves nothing to clean up."""

import contextlib
import math
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such call: there nothing is locked
    fcntl = None  # type: ignore[assignment]

POLL_SECONDS = 0.01
_open: set[int] = set()


def _close_in_child() -> None:
    """A forked reader of data would hold its parent's locks for as long as it outlives it."""
    for descriptor in _open:
        os.close(descriptor)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def held(path: Path, wait: float = 0.0) -> Iterator[bool]:
    """Hold the lock of the file at `path` (flock(2)); gives whether it is ours.

    wait: the seconds in which it may become free; math.inf is until it does. The file is made where it is missing, and
    stays: removing it would let two processes hold two files of one name. Threads exclude each other as well.
    """
    if fcntl is None:
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _open.add(descriptor)
    try:
        yield _lock(descriptor, wait)
    finally:
        if descriptor in _open:  # not in a forked child
            _open.discard(descriptor)
            os.close(descriptor)  # which lets go of the lock


def _lock(descriptor: int, wait: float) -> bool:
    if wait == math.inf:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(POLL_SECONDS)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock of the file at `path` at this moment. To look takes it for microseconds."""
    if not path.exists():
        return False
    with held(path) as ours:
        return not ours


def sign(path: Path) -> None:
    """Write into a lock's file that it is this machine's, for `is_held_here`; to be called by its holder."""
    if fcntl is not None:
        path.write_text(platform.node())


def is_held_here(path: Path) -> bool | None:
    """Whether a process of this machine holds a signed lock.

    None where that can't be known: another machine signed it, which a shared folder need not tell of, or nobody has.
    """
    try:
        return is_held(path) if path.read_text() == platform.node() else None
    except (OSError, UnicodeDecodeError):
        return None
