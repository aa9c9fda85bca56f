"""Commands as processes of their own, for what only a process can suffer.

They are forked from one process that has done the imports, so that a test waits for none.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

PRELOAD = ["optuna", "iolaus.run", "iolaus.sweeper", "iolaus.loop", "iolaus.parts", "iolaus.results", "iolaus.curves",
           "iolaus.models.cnn", "iolaus.data.open", "hydra_plugins.hydra_optuna_sweeper._impl"]  # fmt: skip
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(PRELOAD)


def run_command(folder, arguments):
    """What the process does: `python train.py ARGUMENTS` in `folder`, with a process group of its own."""
    os.setpgid(0, 0)
    os.chdir(folder)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.argv = ["train.py", *arguments]
    import torch

    import train
    from iolaus.errors import errors_for_people

    torch.set_num_threads(1)
    with errors_for_people():
        train.main()


def start(folder, *arguments):
    process = context.Process(target=run_command, args=(str(folder), arguments))
    process.start()
    return process


def kill(process):
    """kill -9, of this process alone."""
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)


def wait_for(what, process=None, seconds=300):
    """Wait until what() gives something, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        assert process is None or process.is_alive(), "the process has ended"
        time.sleep(0.02)
    return found


def group_of(process):
    """The ids of the living processes of a process's group, which are its workers."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == process.pid and fields[0] != "Z":
                members.append(int(stat.parent.name))
    return members


def workers_of(process):
    """Joblib's worker processes of a group."""
    workers = []
    for pid in group_of(process):
        with contextlib.suppress(OSError):
            if b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes():
                workers.append(pid)
    return workers
