"""Learning rate and batch size over a run: the batch size is a function of the epoch, totals are exact."""

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

    from iolaus.machine.late import LateNumber
    from iolaus.settings import Trainer

# The names that torch's schedulers have for their length, and the least of it: a cycle of one step would begin at its
# end.
TOTALS = {"total_steps": 2, "T_max": 1, "total_iters": 1}
CYCLED = ("momentum", "betas")  # OneCycleLR and CyclicLR move these too


def batch_size_at(epoch: int, initial: int, schedule: Mapping[int, int] | None) -> int:
    """The batch size of an epoch (from 0): of the last entry {epoch: size} at or before it, else `initial`."""
    past = [start for start in schedule or {} if start <= epoch]
    return schedule[max(past)] if schedule and past else initial


def steps_at(
    epoch: int, count: int, initial: int, schedule: Mapping[int, int] | None, drop_last: bool = True
) -> tuple[int, int]:
    """(batch size, steps) of an epoch over `count` images; a batch is never larger than the data.

    drop_last: whether an incomplete last batch is left out.
    """
    size = min(batch_size_at(epoch, initial, schedule), count)
    return size, count // size if drop_last else -(-count // size)


def total_steps(
    epochs: int, count: int, initial: int, schedule: Mapping[int, int] | None, drop_last: bool = True
) -> int:
    """Optimizer steps of a whole run under a batch-size schedule."""
    return sum(steps_at(epoch, count, initial, schedule, drop_last)[1] for epoch in range(epochs))


def warmup_steps(
    epochs: float, count: int, initial: int, schedule: Mapping[int, int] | None, drop_last: bool = True
) -> int:
    """Optimizer steps of the first `epochs` epochs; a fraction is a part of the last one."""
    whole = int(epochs)
    steps = total_steps(whole, count, initial, schedule, drop_last)
    return steps + round((epochs - whole) * steps_at(whole, count, initial, schedule, drop_last)[1])


def part_bounds(count: int, size: int) -> list[tuple[int, int]]:
    """The parts of a batch of `count` images, `size` each, as (first, last + 1).

    A single image that is left joins the part before it: BatchNorm has no variance of one image.
    """
    firsts = [first for first in range(0, count, size) if first == 0 or size == 1 or count - first > 1]
    return list(zip(firsts, [*firsts[1:], count], strict=True))


def smallest_part(settings: "Trainer", count: int) -> int:
    """The fewest images that go through the model at once in a run over `count` training images."""
    batches = set()
    for epoch in range(settings.epochs):
        size = steps_at(epoch, count, settings.batch_size, settings.batch_size_schedule)[0]
        batches |= {size} if settings.drop_last else {size, count % size or size}
    parts = [part_bounds(batch, settings.micro_batch_size or batch) for batch in batches]
    return min(last - first for bounds in parts for first, last in bounds)


def lr_scale(batch_size: int, initial: int, rule: str) -> float:
    """The factor of the learning rate for a batch of another size than `initial`.

    rule: linear (Goyal et al. 2017, section 2.1), sqrt (Krizhevsky 2014, section 5), or none.
    """
    return math.pow(batch_size / initial, {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[rule])


@dataclass
class Schedule:
    """The learning rates: from a torch scheduler, a warm-up, the batch size, and each group's own factor.

    scheduler: a torch scheduler over `stand_in(optimizer)`, one group for all. The groups of `optimizer` get its
    learning rate times their factor, the ratio of their initial rates; so no scheduler's eta_min, min_lr or max_lr can
    change the ratios. interval: whether it moves after each step or each epoch; a plateau gets the metric `monitor`.
    warmup_steps: in these a factor rises linearly to 1 (Goyal et al. 2017, section 2.2). scale: a factor for the
    current epoch (lr_scale). ends: for each group None, or the step at which it ends to learn: its rate falls in a line
    to 0 up to there, in place of the scheduler's (as layers are frozen one by one in Brock et al. 2017, FreezeOut).
    """

    scheduler: "LRScheduler"
    optimizer: "Optimizer"
    interval: str = "epoch"
    monitor: str | None = None
    warmup_steps: int = 0
    scale: float = 1.0
    ends: Sequence[int | None] = ()

    def __post_init__(self) -> None:
        lr = self.optimizer.defaults["lr"]
        self.factors = [group["lr"] / lr if lr else 1.0 for group in self.optimizer.param_groups]
        self.ends = self.ends or [None] * len(self.factors)
        self.skipped: LateNumber | None = None  # whether the last step was, if that is not known yet

    def before_step(self, step: int) -> None:
        """Set the optimizer's learning rates for a step (counted from 0), and a momentum that the scheduler moves."""
        self.settle()
        now = self.scheduler.optimizer.param_groups[0]
        ramp = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        for group, factor, end in zip(self.optimizer.param_groups, self.factors, self.ends, strict=True):
            lr = now["lr"] if end is None else self.optimizer.defaults["lr"] * max(0.0, 1 - step / end)
            group["lr"] = lr * ramp * self.scale * factor
            for name in CYCLED:
                if name in now and name in group:
                    group[name] = now[name]

    def after_step(self, skipped: "LateNumber | None" = None) -> None:
        """Move on, unless the step was skipped: 1 if so. It is read where the answer is needed, if it is on its way."""
        if self.interval == "step":
            self.skipped = skipped
            if skipped is None:
                self.scheduler.step()
            elif skipped.here:
                self.settle()

    def settle(self) -> None:
        """Move on for the last step, if that has waited for a number from the device."""
        skipped, self.skipped = self.skipped, None
        if skipped is not None and not skipped.read():
            self.scheduler.step()

    def after_epoch(self, metrics: Mapping[str, float]) -> None:
        self.settle()
        if self.monitor is not None:
            if metrics["step"] > self.warmup_steps:  # a rate that still rises has no plateau yet
                cast("ReduceLROnPlateau", self.scheduler).step(metrics[self.monitor])
        elif self.interval == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        self.settle()
        now = {k: v for k, v in self.scheduler.optimizer.param_groups[0].items() if k != "params"}
        return {"scheduler": self.scheduler.state_dict(), "reference": now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped = None
        self.scheduler.load_state_dict(state["scheduler"])
        self.scheduler.optimizer.param_groups[0].update(state["reference"])


def stand_in(optimizer: "Optimizer") -> "Optimizer":
    """An optimizer of one group with the settings of `optimizer` that trains nothing, for a scheduler to move."""
    import torch

    made = torch.optim.Optimizer([torch.zeros(())], dict(optimizer.defaults))
    made._opt_called = True  # type: ignore[attr-defined]  # else a scheduler warns that the optimizer never steps
    return made


def fill_totals(parameters: Mapping[str, object], arguments: Mapping[str, object], total: int) -> dict[str, int]:
    """The run's length as the scheduler's argument for it, if the config has null there."""
    return {
        name: max(total, least)
        for name, least in TOTALS.items()
        if name in parameters and arguments.get(name, 0) is None
    }


def is_plateau(scheduler_class: Callable[..., object]) -> bool:
    """Whether a scheduler follows a metric: torch's ReduceLROnPlateau or a subclass."""
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    return isinstance(scheduler_class, type) and issubclass(scheduler_class, ReduceLROnPlateau)


def dry_run(scheduler: "LRScheduler", total: int) -> None:
    """Take a scheduler's first step and its last of `total`, and undo both.

    Raises ValueError where the run would end in the middle: the schedule is shorter, or divides by zero.
    """
    optimizer = scheduler.optimizer
    state = copy.deepcopy(scheduler.state_dict())
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        with warnings.catch_warnings(action="ignore"):  # the optimizer has not stepped yet
            scheduler.step()
            scheduler.last_epoch = total - 1
            scheduler.step()
    except ZeroDivisionError as error:
        raise ValueError("divides by zero") from error
    finally:
        scheduler.load_state_dict(state)
        for group, before in zip(optimizer.param_groups, groups, strict=True):
            group.update(before)
