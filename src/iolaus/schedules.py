"""Learning rates and batch size over time: the batch size is a function of the epoch, totals are exact."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TOTALS = ("total_steps", "T_max", "total_iters")  # what torch's schedulers call their length
CYCLED = ("momentum", "betas")  # what OneCycleLR and CyclicLR move besides the learning rate


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


def warmup_steps(
    epochs: float, count: int, initial: int, schedule: Mapping[int, int] | None, drop_last: bool = True
) -> int:
    """Optimizer steps of the first `epochs` epochs, of which the last may be a part of one."""
    whole = int(epochs)
    steps = total_steps(whole, count, initial, schedule, drop_last)
    return steps + round((epochs - whole) * steps_at(whole, count, initial, schedule, drop_last)[1])


def lr_scale(batch_size: int, initial: int, rule: str) -> float:
    """What the learning rate is multiplied with for a batch of another size than `initial`.

    rule: linear (Goyal et al. 2017, section 2.1), sqrt (Krizhevsky 2014, section 5), or none.
    """
    return (batch_size / initial) ** {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[rule]


@dataclass
class Schedule:
    """What sets the learning rates: a torch scheduler, a warm-up, the batch size, and each group's own factor.

    scheduler: a torch scheduler over `reference(optimizer)`, one group that stands for all. The groups of `optimizer`
    get its learning rate times their factor, the ratio that they began with; so no scheduler's eta_min, min_lr or
    max_lr can change the ratios. interval: it moves after each step or each epoch; a plateau gets the metric `monitor`.
    warmup_steps: in these the rate is multiplied by a line that ends at 1 (Goyal et al. 2017, section 2.2); scale: a
    factor for the epoch at hand (lr_scale).
    """

    scheduler: Any
    optimizer: Any
    interval: str = "epoch"
    monitor: str | None = None
    warmup_steps: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        lr = self.optimizer.defaults["lr"]
        self.factors = [group["lr"] / lr if lr else 1.0 for group in self.optimizer.param_groups]

    def before_step(self, step: int) -> None:
        """Give the optimizer its learning rates for a step (counted from 0), and a cycled momentum if there is one."""
        now = self.scheduler.optimizer.param_groups[0]
        ramp = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        lr = now["lr"] * ramp * self.scale
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = lr * factor
            for name in CYCLED:
                if name in now and name in group:
                    group[name] = now[name]

    def after_step(self) -> None:
        if self.interval == "step":
            self.scheduler.step()

    def after_epoch(self, metrics: Mapping[str, float]) -> None:
        if self.monitor is not None:
            self.scheduler.step(metrics[self.monitor])
        elif self.interval == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        now = {k: v for k, v in self.scheduler.optimizer.param_groups[0].items() if k != "params"}
        return {"scheduler": self.scheduler.state_dict(), "reference": now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        self.scheduler.optimizer.param_groups[0].update(state["reference"])


def reference(optimizer: Any) -> Any:
    """An optimizer of one group with the settings of `optimizer`, which trains nothing: a scheduler's to move."""
    import torch

    made = torch.optim.Optimizer([torch.zeros(())], dict(optimizer.defaults))
    made._opt_called = True  # type: ignore[attr-defined]  # else a scheduler warns that it never steps
    return made


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
