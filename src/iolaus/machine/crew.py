"""The other ranks of a run as rank 0 sees them: it hands them work, watches them, and ends them.

They learn of their work through torch's store of keys and values, which rank 0 or torchrun serves: `work/0`, `work/1`,
… hold what each run of this process needs. A rank that fails leaves the reason at `failure/RANK`.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iolaus.errors import RunFailed

if TYPE_CHECKING:
    import torch
    from torch._C._distributed_c10d import Store

    from iolaus.machine.ranks import Ranks

LOOK_SECONDS = 0.05
END_SECONDS = 5.0  # for the other ranks to end by themselves, or to say why they failed
LOST_PEER = (
    "gloo",
    "nccl",
    "connection closed",
    "connection was likely closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "store",
)


class RankLost(RunFailed):
    """A rank's process has ended in the middle of a run, which goes on from its last checkpoint."""


@dataclass
class Crew:
    """The other ranks of this process's runs, as rank 0 sees them.

    devices: those of this machine, from rank 0's on. processes: the ranks that rank 0 has started itself. work: what
    the next run needs to be known of; works: the number of runs that they have been handed. threads: torch's before
    the ranks came to share the processor. at_work: whether they are at a run. over: whether they have been let go.
    """

    group: "Ranks"
    devices: "Sequence[torch.device]"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    work: dict[str, Any] = field(default_factory=dict)
    works: int = 0
    threads: int | None = None
    at_work: bool = False
    over: bool = False

    @property
    def store(self) -> "Store":
        return self.group.store

    def begin(self) -> None:
        """Hand the other ranks a run; the first time, form the process group with them. Raises RankLost."""
        import torch

        from iolaus.machine.ranks import to_bytes

        devices = [str(device) for device in self.devices]
        self.store.set(f"work/{self.works}", to_bytes({**self.work, "devices": devices}))  # type: ignore[arg-type]
        self.works, self.at_work = self.works + 1, True
        if self.works > 1:
            return
        others = [f"here/{rank}" for rank in range(1, self.group.world)]
        while others and not self.store.check(others):
            self._raise_lost()
            time.sleep(LOOK_SECONDS)
        if self.processes and self.devices[0].type == "cpu":
            self.threads = torch.get_num_threads()
            torch.set_num_threads(threads_of_rank(len(self.devices)))
        self.group.connect()
        if self.devices[0].type == "cuda":
            threading.Thread(target=self._watch, name="iolaus-ranks", daemon=True).start()

    def find_cause(self, error: Exception) -> Exception:
        """Why a run failed: a rank's own reason, where `error` only says that it is gone."""
        deadline = time.monotonic() + END_SECONDS
        while is_lost_peer(error) and time.monotonic() < deadline:
            lost = self._find_lost()  # before its reason, which it leaves before it ends
            for rank in range(1, self.group.world):
                with suppress(RuntimeError):  # torchrun's store may be gone
                    if self.store.check([f"failure/{rank}"]):
                        line, _, trace = self.store.get(f"failure/{rank}").decode().partition("\n")
                        return RuntimeError(f"rank {rank}: {line}\n{trace}") if trace else RunFailed(line)
            if lost is not None:
                return lost
            time.sleep(LOOK_SECONDS)
        return RankLost("another rank is gone") if is_lost_peer(error) else error

    def _find_lost(self) -> RankLost | None:
        """What has become of a process that has ended, of one that was killed if there is such a one."""
        found = [(process.poll(), rank) for rank, process in enumerate(self.processes, 1)]
        for status, rank in sorted((status, rank) for status, rank in found if status is not None):
            how = f"killed by signal {-status}" if status < 0 else "ended"
            return RankLost(f"rank {rank} of {self.group.world} was {how} in the middle of the run")
        return None

    def _raise_lost(self) -> None:
        if (lost := self._find_lost()) is not None:
            raise lost

    def _watch(self) -> None:
        """End a run whose rank is gone: gloo raises an error then, but NCCL waits."""
        from torch.distributed import distributed_c10d

        while not self.over and self._find_lost() is None:
            time.sleep(0.5)
        if not self.over:
            distributed_c10d._abort_process_group()
            time.sleep(2 * END_SECONDS)
        if not self.over:  # the main thread still waits for the GPU
            print(f"iolaus: {self._find_lost()}", file=sys.stderr)
            os._exit(1)

    def end(self, kill: bool) -> None:
        """End the other ranks, at once or when they have nothing more to do."""
        import torch
        from torch import distributed

        self.over = True
        with suppress(Exception):  # torchrun's store may be gone
            self.store.set(f"work/{self.works}", "")
        deadline = time.monotonic() + (0 if kill else END_SECONDS)
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()
        if distributed.is_initialized():
            with suppress(Exception):
                if kill and self.devices[0].type == "cuda":  # NCCL would wait for the others
                    distributed.distributed_c10d._abort_process_group()
                else:
                    distributed.destroy_process_group()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.processes:
            os.environ.pop("LOCAL_WORLD_SIZE", None)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in LOST_PEER)


def threads_of_rank(ranks: int) -> int:
    """The threads of each of several ranks on one machine's processor."""
    import torch

    return int(os.environ.get("OMP_NUM_THREADS", max(1, torch.get_num_threads() // ranks)))
