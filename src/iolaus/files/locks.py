"""Locks that end with the process that holds them, however it ends: kill -9 leaves nothing to clean up."""

import contextlib
import errno
import math
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from iolaus.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows has no flock: filelock, which torch needs anyway, locks there by other means
    fcntl = None  # type: ignore[assignment]

POLL_SECONDS = 0.01
TAKEN = (errno.EACCES, errno.EAGAIN)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of some network file systems
_open: set[int] = set()


def _close_in_child() -> None:
    """Close the parent's locks in a forked process, which would keep them for as long as it outlives the parent."""
    for descriptor in _open:
        os.close(descriptor)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def file_lock(path: Path, timeout: float = 0.0) -> Iterator[bool]:
    """Lock the file at `path` (flock(2)) for the length of a `with` statement; yields whether that succeeded.

    timeout: seconds to wait for a lock that is taken; math.inf waits until it is free. A missing file is created, and
    it stays: removing it would let two processes lock two files of one name. Threads exclude each other as well.
    Raises ConfigError where the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        with lock_without_flock(path, timeout) as ours:
            yield ours
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _open.add(descriptor)
    try:
        yield _acquire(path, descriptor, timeout)
    finally:
        if descriptor in _open:  # not in a forked child
            _open.discard(descriptor)
            os.close(descriptor)  # which releases the lock


@contextlib.contextmanager
def lock_without_flock(path: Path, timeout: float) -> Iterator[bool]:
    """`file_lock` by the package filelock, for systems without flock(2)."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=-1 if timeout == math.inf else timeout, poll_interval=POLL_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _acquire(path: Path, descriptor: int, timeout: float) -> bool:
    waits = timeout == math.inf
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in NO_LOCKS:
                hint = "mount it with locks, or put outputs/ on a disk of this machine (hydra.run.dir, hydra.sweep.dir)"
                raise ConfigError(f"{path.parent}: its file system has no locks ({error.strerror}); {hint}") from error
            if error.errno not in TAKEN:
                raise
            if time.monotonic() >= deadline:
                return False
        time.sleep(POLL_SECONDS)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of the file at `path`. Checking acquires the lock briefly."""
    if not path.exists():
        return False
    with file_lock(path) as ours:
        return not ours


def record_host(path: Path) -> None:
    """Write the name of this machine into a lock's file, for `is_locked_here`; the lock's holder calls it."""
    if fcntl is not None:
        try:
            path.write_text(platform.node())
        except OSError as error:  # a full disk, which names no file
            raise OSError(error.errno, error.strerror, str(path)) from error


def is_locked_here(path: Path) -> bool | None:
    """Whether a process of this machine holds a lock; None where that can't be known.

    It can't where the file names another machine, whose locks a shared folder need not show, or no machine at all.
    """
    try:
        return is_locked(path) if path.read_text() == platform.node() else None
    except (OSError, UnicodeDecodeError):
        return None
