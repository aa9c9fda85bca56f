"""A process whose parent has died does not stay behind, unless it is at a run."""

import os
import subprocess
import sys

import processes

CHILD = """
import os, sys, time
from iolaus.machine import parent
if len(sys.argv) > 2:
    parent.at_work.set()
parent.watch_parent(int(sys.argv[1]))
if len(sys.argv) > 2:
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.02)
    parent.at_work.clear()
time.sleep(300)
"""
PARENT = """
import os, subprocess, sys, time
command = [sys.executable, "-c", sys.argv[1], str(os.getpid())]
children = [subprocess.Popen([*command, *more]) for more in ([], sys.argv[2:])]
print(*(child.pid for child in children), flush=True)
time.sleep(300)
"""


CTRL_C = """
import os, signal
from iolaus.machine import parent
parent.watch_parent(os.getppid())
signal.raise_signal(signal.SIGINT)
print("goes on")
"""


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_does_not_reach_a_child_between_two_runs():
    done = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")


def test_a_child_ends_with_its_parent_and_one_at_a_run_when_that_has_ended(tmp_path):
    ended = tmp_path / "ended"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(ended)], stdout=subprocess.PIPE, text=True,
                          env=environment) as parent:  # fmt: skip
        idle, busy = map(int, parent.stdout.readline().split())
        parent.kill()
    processes.wait_for(lambda: not is_alive(idle), seconds=30)
    assert is_alive(busy)
    ended.touch()
    processes.wait_for(lambda: not is_alive(busy), seconds=30)
