"""Learning rate and batch size over time: the batch size is a function of the epoch, totals are exact."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TOTALS = ("total_steps", "T_max", "total_iters")  # what torch's schedulers call their length


def batch_size_at(epoch: int, initial: int, schedule: Mapping[int, int] | None) -> int:
    """The batch size of an epoch (from 0): that of the last entry {epoch: size} at or before it, else `initial`."""
    past = [start for start in schedule or {} if start <= epoch]
    return schedule[max(past)] if schedule and past else initial


def steps_at(
    epoch: int, count: int, initial: int, schedule: Mapping[int, int] | None, drop_last: bool = True
) -> tuple[int, int]:
    """(batch size, steps) of an epoch over `count` images; a batch is never larger than the data.

    drop_last: whether images that don't fill a batch are left out of the epoch.
    """
    size = min(batch_size_at(epoch, initial, schedule), count)
    return size, count // size if drop_last else -(-count // size)


def total_steps(
    epochs: int, count: int, initial: int, schedule: Mapping[int, int] | None, drop_last: bool = True
) -> int:
    """Optimizer steps of a whole run under a batch-size schedule."""
    return sum(steps_at(epoch, count, initial, schedule, drop_last)[1] for epoch in range(epochs))


@dataclass
class Schedule:
    """A torch scheduler, and when it moves: after each step or each epoch; a plateau gets the metric `monitor`."""

    scheduler: Any
    interval: str = "epoch"
    monitor: str | None = None

    def after_step(self) -> None:
        if self.interval == "step":
            self.scheduler.step()

    def after_epoch(self, metrics: Mapping[str, float]) -> None:
        if self.monitor is not None:
            self.scheduler.step(metrics[self.monitor])
        elif self.interval == "epoch":
            self.scheduler.step()


def totals(parameters: Mapping[str, Any], arguments: Mapping[str, Any], total: int) -> dict[str, int]:
    """The length of the run under the name that a scheduler has for it, where the config leaves it null."""
    return {name: total for name in TOTALS if name in parameters and arguments.get(name, 0) is None}


def is_plateau(scheduler_class: Callable[..., Any]) -> bool:
    """Whether a scheduler is moved by a metric: torch's ReduceLROnPlateau or a subclass of it."""
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    return isinstance(scheduler_class, type) and issubclass(scheduler_class, ReduceLROnPlateau)


def rehearse(scheduler: Any, total: int) -> None:
    """Take a scheduler's first step and its last of `total`, and undo both.

    Raises ValueError for what would end the run in the middle: a length shorter than the run, a division by zero.
    """
    optimizer = scheduler.optimizer
    state = copy.deepcopy(scheduler.state_dict())
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        with warnings.catch_warnings(action="ignore"):  # that the optimizer has not stepped yet
            scheduler.step()
            scheduler.last_epoch = total - 1
            scheduler.step()
    except ZeroDivisionError as error:
        raise ValueError("divides by zero") from error
    finally:
        scheduler.load_state_dict(state)
        for group, before in zip(optimizer.param_groups, groups, strict=True):
            group.update(before)
