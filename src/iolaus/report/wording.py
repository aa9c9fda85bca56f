"""How keys, values and numbers are written in a report, and the cells that several tables have."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from iolaus.report.document import Cell, Column
from iolaus.report.groups import MISSING, Metric, mean_std
from iolaus.report.runs import STATUSES, Run
from iolaus.tables import short_names

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Measure:
    """A column of numbers: what it is called, where it comes from, how it is written."""

    word: str
    get: Metric
    decimals: int = 0
    percent: bool = False
    scatters: bool = False  # over seeds: mean ± standard deviation
    largest: bool = False  # over seeds: the largest, rather than the mean

    @property
    def name(self) -> str:
        return f"{self.word.replace('accuracy', 'acc')}, %" if self.percent else self.word

    @property
    def unit(self) -> str:
        return " %" if self.percent else ""

    @property
    def factor(self) -> float:
        return 100.0 if self.percent else 1.0

    def cell(self, values: Sequence[float | None]) -> Cell:
        """What a row's values are together."""
        known = [value for value in values if value is not None]
        mean, std = mean_std(known)
        if mean is None:
            return Cell(MISSING)
        middle = max(known) if self.largest else mean
        return Cell(self.written(middle, std if self.scatters else None), order=middle)

    def written(self, value: float, std: float | None = None) -> str:
        text = f"{self.factor * value:,.{self.decimals}f}"
        return text if std is None else f"{text} ± {self.factor * std:.{self.decimals}f}"


def metric(name: str) -> Measure:
    """A metric such as `val/accuracy` at the last epoch: accuracies in percent, losses, seconds, parameters."""
    word, kind = name.replace("/", " "), name.rpartition("/")[2]
    decimals = {"accuracy": 2, "tta_accuracy": 2, "seconds": 1, "parameters": 0}.get(kind, 4)
    return Measure(word, lambda run: run.last(name), decimals, name.endswith("accuracy"), scatters=True)


def best(column: str) -> Measure:
    """One of the columns best_train_accuracy, …, best_test_loss."""
    is_accuracy = column.endswith("accuracy")
    return Measure(column.replace("_", " "), lambda run: run.best(column), 2 if is_accuracy else 4, is_accuracy)


def minutes(runs: Sequence[Run]) -> Measure:
    """Minutes, finer where even the longest run has few."""
    longest = max((run.minutes or 0.0 for run in runs), default=0.0)
    return Measure("minutes", lambda run: run.minutes, 1 if longest >= 10 else 2)


EPOCHS = Measure("epochs", lambda run: run.epochs)
SPEED = Measure("images/s", lambda run: run.images_per_second)
MEMORY = Measure("peak MiB", lambda run: run.peak_memory, largest=True)


def shown(value: str) -> str:
    """A value as it was typed; a drawn number (0.012345678901) with four digits."""
    return f"{float(value):.4g}" if NUMBER.fullmatch(value) and len(value) > 8 else value


def label(settings: Mapping[str, str], keys: Sequence[str]) -> str:
    """What a configuration is, in a few words: `resnet18 · lr 0.1 · step`."""
    names = dict(zip(keys, short_names(keys), strict=True))
    words = []
    for key in keys:
        if key in settings:
            value = shown(settings[key])
            speaks = "." not in key and re.fullmatch(r"[A-Za-z]\w*", value) and value not in ("true", "false", "null")
            words.append(value if speaks else f"{names[key]} {value}")
    return " · ".join(words) or "default"


def counted(numbers: Mapping[str, int]) -> str:
    """`8 finished, 1 failed`"""
    ordered = sorted(numbers, key=lambda name: STATUSES.index(name) if name in STATUSES else len(STATUSES))
    return ", ".join(f"{numbers[name]} {name}" for name in ordered)


def values_of(values: Sequence[str]) -> str:
    """A few values in full; many by their number and ends."""
    if len(values) <= 8:
        return ", ".join(shown(value) for value in values)
    if all(NUMBER.fullmatch(value) for value in values):
        return f"{len(values)} values from {shown(values[0])} to {shown(values[-1])}"
    return f"{len(values)} values: {', '.join(map(shown, values[:5]))}, …"


def setting_columns(keys: Sequence[str]) -> list[Column]:
    return [Column(name, numeric=False) for name in short_names(keys)]


def setting_cells(settings: Mapping[str, str], keys: Sequence[str]) -> list[Cell]:
    return [setting_cell(settings.get(key, MISSING)) for key in keys]


def setting_cell(value: str) -> Cell:
    return Cell(shown(value), order=float(value) if NUMBER.fullmatch(value) else value, whole=value)


def folder_cell(run: Run) -> Cell:
    short = run.name if len(run.name) <= 32 else f"…{run.name[-31:]}"
    return Cell(short, order=run.name, whole=run.name, link=quote(run.name, safe="/=,+", errors="replace") + "/")
