"""Locks exclude processes and threads, end with their process however it ends, and stay with it alone."""

import contextlib
import errno
import math
import multiprocessing
import os
import signal

import processes
import pytest

from iolaus.errors import ConfigError
from iolaus.files import locks


def hold(path, ready):
    with locks.file_lock(path) as ours:
        ready.send(ours)
        signal.pause()


def holder(path):
    """A process that holds the lock, and whether it got it."""
    mine, its = processes.context.Pipe()
    process = processes.context.Process(target=hold, args=(path, its))
    process.start()
    got = mine.recv()
    mine.close()
    its.close()
    return process, got


def test_one_process_at_a_time_has_a_lock_and_kill_9_frees_it(tmp_path):
    path = tmp_path / "folder" / "lock"
    process, got = holder(path)
    assert got
    assert locks.is_locked(path)
    with locks.file_lock(path) as ours:
        assert not ours
    processes.kill(process)
    assert not locks.is_locked(path)
    with locks.file_lock(path) as ours:
        assert ours


def test_threads_exclude_each_other_and_those_that_wait_come_one_after_the_other(tmp_path):
    entered, at_once = processes.most_at_once(lambda: locks.file_lock(tmp_path / "lock", timeout=math.inf), 20)
    assert entered == 80
    assert at_once == 1


def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path):
    mine, its = multiprocessing.Pipe()
    with locks.file_lock(tmp_path / "lock"):
        child = os.fork()
        if child == 0:
            its.send("forked")
            signal.pause()
            os._exit(0)
        assert mine.recv() == "forked"
    try:
        assert not locks.is_locked(tmp_path / "lock")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        mine.close()
        its.close()


def test_a_lock_that_nobody_ever_took_is_free_and_looking_makes_no_file(tmp_path):
    assert not locks.is_locked(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_an_error_and_can_be_had_again(tmp_path):
    try:
        with locks.file_lock(tmp_path / "lock"):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    with locks.file_lock(tmp_path / "lock") as ours:
        assert ours


def test_who_only_looks_at_a_lock_takes_it_from_nobody(tmp_path, monkeypatch):
    path, waited = tmp_path / "lock", []
    with contextlib.ExitStack() as looker:
        assert looker.enter_context(locks.file_lock(path))
        monkeypatch.setattr("time.sleep", lambda seconds: waited.append(seconds) or looker.close())
        with locks.file_lock(path, timeout=1) as ours:
            assert ours
    assert len(waited) == 1
    with locks.file_lock(path), locks.file_lock(path) as ours:
        assert not ours


def test_only_of_a_lock_that_this_machine_signed_is_it_known_whether_it_is_held(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    assert locks.is_locked_here(path) is None
    with locks.file_lock(path):
        assert locks.is_locked_here(path) is None  # it may be another machine's
        locks.record_host(path)
        assert locks.is_locked_here(path) is True
    assert locks.is_locked_here(path) is False
    monkeypatch.setattr("platform.node", lambda: "another")
    assert locks.is_locked_here(path) is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN])
def test_a_lock_that_another_machine_has_is_taken_and_no_error(tmp_path, monkeypatch, number):
    monkeypatch.setattr(locks.fcntl, "flock", fail_with(number))
    with locks.file_lock(tmp_path / "lock") as ours:
        assert not ours


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("timeout", [0, math.inf])
def test_a_file_system_without_locks_is_told_in_one_line(tmp_path, monkeypatch, number, timeout):
    monkeypatch.setattr(locks.fcntl, "flock", fail_with(number))
    with pytest.raises(ConfigError, match="has no locks") as raised, locks.file_lock(tmp_path / "lock", timeout):
        pass
    assert str(tmp_path) in str(raised.value)
    assert "mount it with locks" in str(raised.value)
    assert "\n" not in str(raised.value)


def fail_with(number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    return flock


def test_without_flock_as_on_windows_locks_exclude_processes_and_threads_all_the_same(tmp_path, monkeypatch):
    process, got = holder(tmp_path / "other")  # by flock, which filelock uses here too
    monkeypatch.setattr(locks, "fcntl", None)
    assert got
    assert locks.is_locked(tmp_path / "other")
    processes.kill(process)
    assert not locks.is_locked(tmp_path / "other")
    entered, at_once = processes.most_at_once(lambda: locks.file_lock(tmp_path / "lock", timeout=math.inf), 20)
    assert (entered, at_once) == (80, 1)
