"""The processes of the ranks above 0: started here, or by torchrun; one crew of them for all runs of this process."""

import atexit
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from iolaus.errors import RunFailed
from iolaus.machine.crew import Crew, threads_of_rank

if TYPE_CHECKING:
    import torch

    from iolaus.machine.ranks import Alone

_crew: Crew | None = None
_joined = False  # torchrun's ranks, which can't be joined twice


def under_torchrun() -> bool:
    """Whether torchrun, or what gives the same variables, has started this process as one of several ranks."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def is_follower() -> bool:
    """Whether this process is a rank above 0."""
    return under_torchrun() and int(os.environ["RANK"]) > 0


def form_group(device: str, devices: int | str, work: Callable[[], dict[str, Any]]) -> "Alone":
    """Rank 0's group for a run, its other ranks started if they are not there yet.

    device, devices: of the group `trainer`. work: gives what the other ranks must know of the run. Raises ValueError
    for devices that this machine does not have.
    """
    from iolaus.machine.hardware import pick_devices
    from iolaus.machine.ranks import Alone

    crew = None if _crew is None or _crew.over else _crew
    if under_torchrun():
        world = int(os.environ["WORLD_SIZE"])
        if devices not in (1, "auto", world):
            raise ValueError(f"devices={devices}: torchrun has started {world} ranks; leave it out")
        crew = crew or join_torchrun(device)
    else:
        chosen = [] if devices == 1 else pick_devices(device, devices)
        if crew is not None and crew.devices != chosen:  # ranks that only wait would still share the processor
            crew.end(kill=False)
            crew = None
        if len(chosen) <= 1:
            return Alone(*chosen)
        crew = crew or start_followers(chosen)
    crew.work = work()
    return crew.group


def begin_run(group: "Alone") -> bool:
    """Hand a run to the other ranks of its group; returns whether there are any."""
    if _crew is None or group is not _crew.group:
        return False
    _crew.begin()
    return True


def end_run(group: "Alone") -> None:
    """Leave the other ranks ready for another run: all have come to the end of this one."""
    if _crew is not None and group is _crew.group:
        _crew.group.end_of_run()
        _crew.at_work = False


def find_cause(group: "Alone", error: Exception) -> Exception:
    """Why a run failed: `error`, or where that only says that another rank is gone, what has happened there."""
    return error if _crew is None or group is not _crew.group else _crew.find_cause(error)


def end_broken_run(group: "Alone") -> None:
    """End the other ranks if they are still at a run that is over here: after an error, or Ctrl-C."""
    if _crew is not None and group is _crew.group and _crew.at_work:
        _crew.end(kill=True)


def start_followers(devices: "Sequence[torch.device]") -> Crew:
    """Start the other ranks of this machine, each a Python that imports what a run needs and waits for its work."""
    global _crew
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from iolaus.machine.ranks import Ranks

    world = len(devices)
    store = TCPStore("127.0.0.1", 0, world, is_master=True, wait_for_workers=False)
    os.environ["LOCAL_WORLD_SIZE"] = str(world)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "IOLAUS_PARENT": str(os.getpid())}
    python = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
    shared = {**os.environ, **place, **python, "WORLD_SIZE": str(world)}
    if devices[0].type == "cpu":
        shared["OMP_NUM_THREADS"] = str(threads_of_rank(world))
    _crew = Crew(Ranks(0, world, devices[0], store), devices)
    atexit.register(end_followers)
    command = [sys.executable, "-m", "iolaus.follow"]
    for rank in range(1, world):
        ours = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        _crew.processes.append(subprocess.Popen(command, env=ours, stdin=subprocess.DEVNULL))
    return _crew


def join_torchrun(device: str) -> Crew:
    """Rank 0 under torchrun, whose other ranks run already. Raises ValueError, RunFailed."""
    global _crew, _joined
    from torch.distributed.rendezvous import rendezvous

    from iolaus.machine.hardware import pick_local_device
    from iolaus.machine.ranks import Ranks

    if _joined:
        raise RunFailed("the other ranks have ended with the last run; start torchrun again")
    chosen = pick_local_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    _joined = True
    store, rank, world = next(rendezvous("env://"))
    _crew = Crew(Ranks(rank, world, chosen, store), [chosen])
    return _crew


def own_device(devices: "Sequence[str]") -> "torch.device":
    """The device of this rank above 0, of those that rank 0 has chosen; under torchrun rank 0 names its own only."""
    import torch

    from iolaus.machine.hardware import pick_local_device

    if "IOLAUS_PARENT" in os.environ:
        return torch.device(devices[int(os.environ["LOCAL_RANK"])])
    return pick_local_device(torch.device(devices[0]).type, int(os.environ["LOCAL_RANK"]))


def end_followers() -> None:
    """Let the other ranks go at the end of this process, whatever it has done: torchrun waits for them."""
    if _crew is not None:
        if not _crew.over:
            _crew.end(kill=False)
    elif under_torchrun() and not _joined and int(os.environ["WORLD_SIZE"]) > 1:
        from torch.distributed.rendezvous import rendezvous

        store, _, _ = next(rendezvous("env://"))
        store.set("work/0", "")
