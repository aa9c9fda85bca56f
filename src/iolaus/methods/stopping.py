"""Rules over the history, the list of one dict of metrics per epoch: no state, so nothing to save or restore."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from iolaus.errors import RunFailed
from iolaus.settings import MONITORS, require

History = Sequence[Mapping[str, float]]


class NonFiniteLoss(RunFailed):
    """An infinite or NaN training loss; the message names epoch and step, and gives advice."""


def mode_of(metric: str) -> Literal["min", "max"]:
    """`max` for accuracies and F1, which are better when higher; `min` for losses."""
    return "max" if metric.endswith(("accuracy", "f1")) else "min"


def best_epoch(history: History, metric: str) -> int | None:
    """The epoch with the best value of a metric; None before the first epoch.

    Ties, of which a few hundred validation images give many, go to the lower loss of the same split, then to the
    earlier epoch. An epoch with an infinite or NaN value comes last.
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
    """Early stopping (Prechelt 1998): stop after `patience` epochs without an improvement of `monitor`.

    min_delta: the least improvement that counts. mode: min or max; null takes it from the metric's name.
    Raises ValueError for an unknown metric, a patience below 1 or a negative min_delta.
    """

    monitor: str = "val/loss"
    patience: int = 10
    min_delta: float = 0.0
    mode: Literal["min", "max"] | None = None

    def __post_init__(self) -> None:
        require(self.monitor in MONITORS, "monitor", self.monitor, f"one of {', '.join(MONITORS)}")
        if self.patience < 1:
            raise ValueError(f"patience={self.patience}: must be 1 or more")
        if self.min_delta < 0:
            raise ValueError(f"min_delta={self.min_delta}: must be 0 or more")

    def should_stop(self, history: History) -> bool:
        """Whether a run with this history stops here."""
        sign = 1 if (self.mode or mode_of(self.monitor)) == "min" else -1
        best, since = math.inf, 0
        for metrics in history:
            value = sign * metrics[self.monitor]
            best, since = (value, 0) if value < best - self.min_delta else (best, since + 1)
        return since >= self.patience
