"""Rules over the history, the list of one dict of metrics per epoch: no state, so nothing to save or restore."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

History = Sequence[Mapping[str, float]]


class RunFailed(Exception):
    """A run that can't go on; the message is one line for a person."""


class NonFiniteLoss(RunFailed):
    """The training loss is infinite or not a number; the message names epoch and step, and what to try."""


def mode_of(metric: str) -> Literal["min", "max"]:
    """Which way a metric is better: `max` for accuracies, `min` for losses."""
    return "max" if metric.endswith("accuracy") else "min"


def best_epoch(history: History, metric: str) -> int | None:
    """The epoch with the best value of a metric; None before the first epoch.

    Of equals the one with the lowest loss of the same split: a few hundred validation images give many equal
    accuracies. Then the first. An epoch that diverged is the worst.
    """
    if not history:
        return None
    sign, loss = (1 if mode_of(metric) == "min" else -1), metric.split("/")[0] + "/loss"

    def key(epoch: int) -> tuple[float, float]:
        value, tie = sign * history[epoch][metric], history[epoch][loss]
        return (value, tie) if math.isfinite(value) and math.isfinite(tie) else (math.inf, math.inf)

    return min(range(len(history)), key=key)


@dataclass(frozen=True)
class Patience:
    """Early stopping (Prechelt 1998): stop after `patience` epochs in which `monitor` did not get better.

    min_delta: the least change that counts as better. mode: min or max; null takes it from the metric's name.
    Raises ValueError for an unknown metric, a patience below 1 or a negative min_delta.
    """

    monitor: Literal["val/accuracy", "val/loss", "train/accuracy", "train/loss"] = "val/loss"
    patience: int = 10
    min_delta: float = 0.0
    mode: Literal["min", "max"] | None = None

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"patience={self.patience}: must be 1 or more")
        if self.min_delta < 0:
            raise ValueError(f"min_delta={self.min_delta}: must be 0 or more")

    def should_stop(self, history: History) -> bool:
        """Whether the run that has this history stops here."""
        sign = 1 if (self.mode or mode_of(self.monitor)) == "min" else -1
        best, since = math.inf, 0
        for metrics in history:
            value = sign * metrics[self.monitor]
            best, since = (value, 0) if value < best - self.min_delta else (best, since + 1)
        return since >= self.patience
