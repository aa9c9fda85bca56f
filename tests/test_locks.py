"""Locks exclude processes and threads, end with their process however it ends, and stay with it alone."""

import contextlib
import math
import multiprocessing
import os
import signal
import threading

import processes

from iolaus import locks


def hold(path, ready):
    with locks.held(path) as ours:
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
    assert locks.is_held(path)
    with locks.held(path) as ours:
        assert not ours
    processes.kill(process)
    assert not locks.is_held(path)
    with locks.held(path) as ours:
        assert ours


def test_threads_exclude_each_other_and_those_that_wait_come_one_after_the_other(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with locks.held(tmp_path / "lock", wait=math.inf):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert max(most) == 1


def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path):
    mine, its = multiprocessing.Pipe()
    with locks.held(tmp_path / "lock"):
        child = os.fork()
        if child == 0:
            its.send("forked")
            signal.pause()
            os._exit(0)
        assert mine.recv() == "forked"
    try:
        assert not locks.is_held(tmp_path / "lock")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        mine.close()
        its.close()


def test_a_lock_that_nobody_ever_took_is_free_and_looking_makes_no_file(tmp_path):
    assert not locks.is_held(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_an_error_and_can_be_had_again(tmp_path):
    try:
        with locks.held(tmp_path / "lock"):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    with locks.held(tmp_path / "lock") as ours:
        assert ours


def test_who_only_looks_at_a_lock_takes_it_from_nobody(tmp_path, monkeypatch):
    path, waited = tmp_path / "lock", []
    with contextlib.ExitStack() as looker:
        assert looker.enter_context(locks.held(path))
        monkeypatch.setattr("time.sleep", lambda seconds: waited.append(seconds) or looker.close())
        with locks.held(path, wait=1) as ours:
            assert ours
    assert len(waited) == 1
    with locks.held(path), locks.held(path) as ours:
        assert not ours


def test_only_of_a_lock_that_this_machine_signed_is_it_known_whether_it_is_held(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    assert locks.is_held_here(path) is None
    with locks.held(path):
        assert locks.is_held_here(path) is None  # it may be another machine's
        locks.sign(path)
        assert locks.is_held_here(path) is True
    assert locks.is_held_here(path) is False
    monkeypatch.setattr("platform.node", lambda: "another")
    assert locks.is_held_here(path) is None
