"""Commands in processes of their own, to be killed and interrupted.

They are forked from one process that has imported everything, so that no test waits for imports.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([
    "optuna", "iolaus.run", "iolaus.studies.search", "iolaus.loop", "iolaus.config.build", "iolaus.results",
    "iolaus.show.curves", "iolaus.models.cnn", "iolaus.data.open", "hydra_plugins.hydra_optuna_sweeper._impl",
])  # fmt: skip


def run_command(folder, arguments, environment=None):
    """Run `python train.py ARGUMENTS` in `folder`, in a process group of its own; what it prints goes to `output`.

    environment: what has changed in the variables since the first process, from which all others are forked.
    """
    os.environ.update(environment or {})
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
    from iolaus.config.explain import exit_on_user_errors

    torch.set_num_threads(1)
    try:
        with exit_on_user_errors():
            train.main()
    finally:
        # joblib ends its workers here; multiprocessing would first wait for them, until they are idle for half a minute
        threading._shutdown()


def start(folder, *arguments):
    """Start `python train.py ARGUMENTS` in a process."""
    process = context.Process(target=run_command, args=(str(folder), arguments, dict(os.environ)))
    process.start()
    return process


def kill(process):
    """Send SIGKILL to this process alone."""
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)


def most_at_once(enter, times, n_threads=4):
    """How often threads were inside `with enter()`, `times` each, and how many of them at once at most."""
    inside, most = [], []

    def work():
        for _ in range(times):
            with enter():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(most), max(most)


def wait_for(condition, process=None, seconds=300):
    """Wait until condition() is true, and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        assert process is None or process.is_alive(), "the process has ended"
        time.sleep(0.02)
    return value


def group_of(process):
    """The ids of the living processes in a process's group: itself and its workers."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended in the meantime
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == process.pid and fields[0] != "Z":
                members.append(int(stat.parent.name))
    return members


def workers_of(process):
    """The ids of joblib's worker processes in a process's group."""
    workers = []
    for pid in group_of(process):
        with contextlib.suppress(OSError):
            if b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes():
                workers.append(pid)
    return workers


def write_program(folder):
    """The program `iolaus`, as an installation has it on its path."""
    program = folder / "iolaus"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom iolaus.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
