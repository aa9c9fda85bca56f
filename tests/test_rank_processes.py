"""Whatever ends one process of a run on several devices ends them all, and the run goes on from its checkpoint."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import processes
import pytest
from conftest import ROOT, TINY, exhaustive

pytestmark = pytest.mark.xdist_group("ranks")

LONG = (
    *TINY, "dataset.train_count=60", "model=mlp", "model.hidden=[8]", "trainer.precision=fp32", "trainer.device=cpu",
    "trainer.monitor_every=0", "trainer.epochs=100000", "hydra.run.dir=run", "optimizer=sgd", "optimizer.lr=0.001",
)  # fmt: skip


def ranks_of(process):
    """The ids of the followers in a process's group."""
    found = []
    for pid in processes.group_of(process):
        with suppress(OSError):
            if b"iolaus.follow" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def start_long(folder):
    """A run on two ranks that has its first checkpoint; returns its process and its follower."""
    process = processes.start(folder, *LONG, "trainer.devices=2")
    processes.wait_for((folder / "run" / "last.pt").exists, process)
    (follower,) = ranks_of(process)
    return process, follower


def test_a_signal_or_a_kill_of_either_process_ends_both_with_a_checkpoint_and_one_line(tmp_path):
    output, results = tmp_path / "output", tmp_path / "run" / "results.json"
    for victim, number, status in ((1, signal.SIGTERM, 143), (1, signal.SIGKILL, 1), (0, signal.SIGKILL, -9)):
        output.unlink(missing_ok=True)
        if not (tmp_path / "run").exists():
            process, follower = start_long(tmp_path)
        else:
            before = (tmp_path / "run" / "last.pt").stat().st_mtime_ns
            process = processes.start(tmp_path, "resume=run")
            processes.wait_for(lambda: (tmp_path / "run" / "last.pt").stat().st_mtime_ns > before, process)  # noqa: B023
            (follower,) = ranks_of(process)
        os.kill((process.pid, follower)[victim], number)
        process.join(30)
        assert process.exitcode == status
        processes.wait_for(lambda: not ranks_of(process), seconds=10)  # noqa: B023
        assert not results.exists()
        text = output.read_text()
        assert "Traceback" not in text, text
        assert text.count("continue with: python train.py resume=run") == (victim == 1), text
        if number == signal.SIGKILL and victim == 1:
            assert text.count("rank 1 of 2 was killed by signal 9") == 1


@exhaustive
def test_torchrun_trains_a_sweep_one_run_after_the_other_and_lets_a_help_page_end(tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    given = (*LONG[:-4], "trainer.epochs=1", "seed=0,1", "study=shared")
    command = [*torchrun, str(ROOT / "train.py"), "-m", *given]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/shared/*/results.json")]
    assert [(result["status"], result["world_size"]) for result in results] == [("finished", 2)] * 2
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr  # there is nothing to train, and the other rank is let go
    assert "2 of 2 runs are finished already" in again.stdout
