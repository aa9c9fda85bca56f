"""Settings of our own beside the arguments of a loss and of a scheduler."""

import math
from dataclasses import dataclass
from typing import Literal

from iolaus.settings import MONITORS, require


@dataclass
class LossSettings:
    """one_hot: whether the loss takes one-hot targets of floats (mse), or class indices (cross_entropy).

    class_weights: the loss's argument `weight` in training: one number a class, or balanced (methods/class_weights.py).
    """

    one_hot: bool = False
    class_weights: Literal["balanced"] | list[float] | None = None

    def __post_init__(self) -> None:
        weights = self.class_weights if isinstance(self.class_weights, list) else [1.0]
        allowed = all(math.isfinite(weight) and weight >= 0 for weight in weights) and any(weights)
        require(allowed, "class_weights", self.class_weights, "balanced, or one weight a class: 0 or more, not all 0")


@dataclass
class SchedulerSettings:
    """interval: whether the scheduler moves after each step or each epoch. monitor: the metric that a plateau watches.

    warmup_epochs: the epochs (a fraction is allowed) in which the rate rises linearly to the scheduler's.
    """

    interval: Literal["step", "epoch"] = "epoch"
    monitor: str = "val/loss"
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "0 or more")
        require(self.monitor in MONITORS, "monitor", self.monitor, f"one of {', '.join(MONITORS)}")
