"""How numbers are written wherever a run or a study is shown. Accuracies are fractions and are written in percent."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

MISSING = "–"  # a number that was not measured, or a key that a run does not have
PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
WORDS = {
    "images_per_second": "images/s",
    "peak_memory_mib": "peak MiB",
    # over all epochs, where best_test_* are of one epoch, the best by the objective
    **{f"best_{split}_accuracy": f"max {split} accuracy" for split in ("train", "val")},
    **{f"best_{split}_loss": f"min {split} loss" for split in ("train", "val")},
}
DECIMALS = {"accuracy": 2, "seconds": 1, "parameters": 0, "epochs": 0, "second": 0, "mib": 0}  # by the last word


def count_unread(images: int) -> str:
    """`1 image could not be read and was left out`."""
    what = ("image", "was") if images == 1 else ("images", "were")
    return f"{images} {what[0]} could not be read and {what[1]} left out"


def format_duration(seconds: float) -> str:
    """`12.3 s`, `1 min 00 s` or `1 h 02 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def shorten_number(value: str) -> str:
    """A setting as it was typed; a number that a sampler has drawn (0.012345678901) with four digits."""
    return f"{float(value):.4g}" if PLAIN_NUMBER.fullmatch(value) and len(value) > 8 else value


@dataclass(frozen=True)
class Metric:
    """One of the numbers of a run, by name, and how it is written."""

    name: str
    decimals: int

    @property
    def percent(self) -> bool:
        return self.name.endswith("accuracy")

    @property
    def word(self) -> str:
        return WORDS.get(self.name, re.sub("[/_]", " ", self.name))

    @property
    def axis(self) -> str:
        """The label of an axis: `val accuracy, %`."""
        return self.word + (", %" if self.percent else "")

    @property
    def head(self) -> str:
        """The head of a column: `val acc, %`."""
        return self.axis.replace("accuracy,", "acc,")

    def scale(self, values: Iterable[float]) -> list[float]:
        """Values as they are shown: accuracies in percent."""
        return [100 * value if self.percent else value for value in values]

    def format(self, value: float, std: float | None = None) -> str:
        """A value without its unit; with `std`, `value ± std`."""
        shown = self.scale([value] if std is None else [value, std])
        # a number with four decimals, such as a loss, can be too large or too small for them
        powers = self.decimals == 4 and math.isfinite(value) and value and not 5e-5 <= abs(value) < 1e5
        return " ± ".join(f"{x:.2e}" if powers else f"{x:,.{self.decimals}f}" for x in shown)

    def format_with_unit(self, value: float | None) -> str:
        """`75.00 %` for an accuracy; MISSING for None."""
        return MISSING if value is None else self.format(value) + (" %" if self.percent else "")


def metric_of(name: str, longest_minutes: float = 0.0) -> Metric:
    """longest_minutes: of all runs in the same column; minutes are finer where even the longest run took few."""
    if name == "minutes":
        return Metric(name, 1 if longest_minutes >= 10 else 2)
    return Metric(name, DECIMALS.get(re.split("[/_]", name)[-1], 4))


def time_metric(longest_minutes: float) -> Metric:
    """The time of runs of which the longest took so many minutes: in minutes, or in seconds below one."""
    return metric_of("minutes", longest_minutes) if longest_minutes >= 1 else metric_of("seconds")


def format_metric(name: str, value: float | None) -> str:
    return metric_of(name).format_with_unit(value)
