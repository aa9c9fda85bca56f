"""What the ranks above 0 do: they build the parts of each run that rank 0 hands them, and take every step with it.

They have no folder, no log, no display and no tracker; whatever ends rank 0 ends them. torchrun starts them with the
command of rank 0, `trainer.devices` with `python -m iolaus.follow`.
"""

import contextlib
import functools
import itertools
import logging
import math
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import DictConfig

from iolaus.config.check import check, resolve_all
from iolaus.config.explain import explain_failure
from iolaus.errors import ConfigError
from iolaus.machine import followers
from iolaus.machine.crew import LOOK_SECONDS, is_lost_peer
from iolaus.machine.parent import end_with
from iolaus.machine.process import collect_as_usual, collect_rarely, spin_briefly
from iolaus.machine.signals import ALARM, PAUSE, WARNINGS
from iolaus.methods.stopping import NonFiniteLoss
from iolaus.trust.command_line import CommandLine

if TYPE_CHECKING:
    from iolaus.config.build import Parts
    from iolaus.learner import LoopState
    from iolaus.machine.ranks import Alone, Ranks

log = logging.getLogger(__name__)


def describe_work(cfg: DictConfig) -> dict[str, Any]:
    """What the other ranks must know of a run: its configuration, resolved, and what the user typed."""
    typed = CommandLine.instance()
    config = {key: value for key, value in resolve_all(cfg).items() if key not in ("tracker", "resume")}
    return {"config": config, "typed": list(typed.overrides), "folder": str(typed.folder)}


def begin_together(parts: "Parts", state: "LoopState", group: "Alone") -> "LoopState":
    """Let every rank begin where rank 0 stands; returns rank 0's state."""
    from iolaus.learner import LoopState

    parts.learner.join(group)
    return LoopState.from_state_dict(group.broadcast(state.state_dict()))


@contextlib.contextmanager
def take_rank() -> Iterator[None]:
    """Be the rank that torchrun has made this process: one above 0 follows, and ends; rank 0 lets the others go."""
    spin_briefly()
    collect_rarely()
    if followers.is_follower():
        follow()
    try:
        yield
    finally:
        followers.end_followers()


def ask_ranks(
    group: "Alone", received: list[int], end: float = math.inf, is_due: Callable[[], bool] = lambda: False
) -> int:
    """The signal that any rank has received; PAUSE where a checkpoint is due, 0 for none.

    end: the time of the clock that counts as a signal, too.
    """
    if not received and time.time() >= end:
        log.warning("trainer.max_minutes: ending after this step, with a checkpoint")
        received.append(ALARM)
    return group.agree(received[0] if received else PAUSE if is_due() else 0)


def follow() -> NoReturn:
    """Be a rank above 0, until rank 0 has no more runs or is gone."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else torch tells a lost store with a page of its frames
    import torch  # noqa: F401  (all that takes long, while rank 0 prepares the first run)
    from torch.distributed.rendezvous import rendezvous

    from iolaus import results  # noqa: F401
    from iolaus.machine.ranks import Ranks, from_bytes

    parent = int(os.environ.get("IOLAUS_PARENT", os.getppid()))
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    for number in (signal.SIGINT, *WARNINGS):  # a terminal or a cluster sends them to rank 0 as well, which decides
        signal.signal(number, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    store, rank, world = next(rendezvous("env://"))
    store.set(f"here/{rank}", b"")
    group: Ranks | None = None
    try:
        for number in itertools.count():
            while not store.check([f"work/{number}"]):
                time.sleep(LOOK_SECONDS)
            if not (content := store.get(f"work/{number}")):
                break
            work = from_bytes(content)
            if group is None:
                group = Ranks(rank, world, followers.own_device(work["devices"]), store)
                group.connect()
            take_part(work, group)
    except (KeyboardInterrupt, SystemExit):
        os._exit(1)
    except Exception as error:
        if not is_lost_peer(error):
            line = "; ".join(error.problems) if isinstance(error, ConfigError) else explain_failure(error)
            reason = line or f"{type(error).__name__}\n{traceback.format_exc()}"
            with contextlib.suppress(RuntimeError):  # rank 0 is gone, and its store
                store.set(f"failure/{rank}", reason)
        os._exit(1)  # without a wait for the process group, which is broken
    os._exit(0)


def take_part(work: dict[str, Any], group: "Ranks") -> None:
    """Train and evaluate one run together with rank 0."""
    from iolaus import loop, results
    from iolaus.config.build import build_parts
    from iolaus.learner import LoopState
    from iolaus.machine.monitor import Monitor
    from iolaus.machine.signals import stop_on_signals
    from iolaus.show.progress import NullProgress
    from iolaus.show.trackers import TrackerList

    collect_as_usual()
    typed = CommandLine.instance()
    typed.overrides, typed.folder = tuple(map(tuple, work["typed"])), Path(work["folder"])
    parts = build_parts(check(work["config"]), group)
    try:
        state = begin_together(parts, LoopState(), group)
        learner, objective = parts.learner, parts.config.launch.objectives[0]
        observers = loop.Observers(TrackerList([]), NullProgress(), Monitor(learner.device, 0, lambda: 0))
        with stop_on_signals() as received:
            interrupted = functools.partial(ask_ranks, group, received)
            nobody, nothing = (lambda history: False), (lambda: None)
            number = loop.train(learner, parts.data, state, observers, objective, nobody, interrupted, nothing)
        if not number and not group.broadcast(False):  # not pruned
            results.evaluate_final(parts, state, lambda: {"model": {}})
    except NonFiniteLoss:  # of a sum over the ranks: all of them meet it, and rank 0 tells it
        pass
    finally:
        parts.data.close()
    group.end_of_run()


if __name__ == "__main__":
    collect_rarely()
    follow()
