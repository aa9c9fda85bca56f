"""A real Slurm of two nodes on this machine, from Debian's slurm-wlm and munge; without systemd."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from conftest import ROOT, alone

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
JobRequeue=1
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_1} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_2} CPUs=2
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1
PartitionName=high Nodes=n1,n2 PriorityTier=9
"""
# What submitit asks for the states of jobs; the real one wants a database of accounts.
SACCT = """#!/bin/bash
echo 'JobID|State|NodeList'
while [ $# -gt 0 ]; do
  [ "$1" = -j ] && scontrol -o show job "$2" 2>/dev/null |
    sed -E 's/^JobId=([0-9]+) (ArrayJobId=([0-9]+) ArrayTaskId=([0-9]+) )?.*JobState=([A-Z_]+) .*/\\1 \\3 \\4 \\5/' |
    awk '{ print (NF == 4 ? $2 "_" $3 : $1) "|" $NF "|" }'
  shift
done
"""


def why_none() -> str | None:
    """Why Slurm can't be started here; None where it can."""
    if not all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in PROGRAMS):
        return "no Slurm: apt-get install slurm-wlm munge"
    return None if getattr(os, "getuid", lambda: 1)() == 0 else "only root can start Slurm's daemons"


# of tests under it: one at a time, or none where there is no Slurm, and no job that outlives its test
MARKS = [
    alone,
    pytest.mark.skipif(why_none() is not None, reason=str(why_none())),
    pytest.mark.usefixtures("_nothing_is_left"),
]


@contextlib.contextmanager
def start() -> Iterator[Path]:
    """Slurm's daemons, in a folder of their own, and their environment."""
    folder, host = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp")), os.uname().nodename
    folder.chmod(0o755)
    port, port_1, port_2 = free_ports(3)
    conf = CONF.format(folder=folder, host=host, port=port, port_1=port_1, port_2=port_2)
    (folder / "slurm.conf").write_text(conf)
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    (folder / "state").mkdir()
    (folder / "sacct").write_text(SACCT)
    (folder / "sacct").chmod(0o755)
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}:/usr/sbin")
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])))
    files = (f"--{name}-file={folder}/{name}" for name in ("key", "pid", "log", "seed"))
    daemons = [["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
               ["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]  # fmt: skip
    started = []
    with (folder / "output").open("w") as output:
        for daemon in daemons:
            started.append(subprocess.Popen(daemon, stdout=output, stderr=output))
            if daemon[0] == "munged":
                processes.wait_for(lambda: (folder / "munge.socket").exists(), seconds=30)
    try:
        processes.wait_for(
            lambda: set(slurm("sinfo", "-h", "-N", "-o", "%N %T").splitlines()) == {"n1 idle", "n2 idle"}, seconds=60
        )
        yield folder
    finally:
        with contextlib.suppress(AssertionError):
            cancel_all()
        for one in reversed(started):
            one.terminate()
            one.wait(30)
        patch.undo()
        shutil.rmtree(folder)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def slurm(*command: str) -> str:
    """What one of Slurm's programs prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def cancel_all() -> None:
    slurm("scancel", "--user=root")
    processes.wait_for(lambda: not queued(), seconds=60)


def queued() -> list[str]:
    """The ids of all jobs, queued or at work or about to end; a task of an array is ARRAY_TASK."""
    return slurm("squeue", "-h", "-r", "-o", "%i").split()


def state_of(job: str) -> str:
    return slurm("squeue", "-h", "-r", "-o", "%T", "-j", job).strip()


def begin_again(job: str) -> None:
    """Let a job that queues again begin soon: Slurm would wait two minutes.

    Not at once: a node refuses what begins in the second in which it has ended there ("Job credential revoked").
    """
    processes.wait_for(lambda: state_of(job) == "PENDING", seconds=60)
    time.sleep(1.5)
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")


def wait_for_the_end(study: Path) -> None:
    deadline = time.monotonic() + 240
    while queued():
        assert time.monotonic() < deadline, f"{slurm('squeue')}\n{logs_of(study)}"
        time.sleep(0.2)


def logs_of(study: Path) -> str:
    """What the workers of `hydra/launcher=slurm` have printed."""
    return "".join(path.read_text() for path in sorted((study / ".slurm").glob("*.log")))


def epochs_of(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines() if line] if path.exists() else []
