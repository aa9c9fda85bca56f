"""Configurations: the runs that differ only in their seed, together. Their order, names and numbers."""

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from iolaus.report.document import Cell, Column
from iolaus.report.runs import FINISHED, PRUNED, Run, Study, short_names

MISSING = "–"  # the value of a key that a run does not have
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
WORDS = {"images_per_second": "images/s", "peak_memory_mib": "peak MiB"}
DECIMALS = {"accuracy": 2, "seconds": 1, "parameters": 0, "epochs": 0, "second": 0, "mib": 0}  # by the last word
ONE_NUMBER = ("epochs", "minutes", "images_per_second", "peak_memory_mib")  # for several seeds, too


@dataclass(frozen=True)
class Group:
    """The runs of one configuration, one for each seed.

    Those that are finished count. Where none is, the pruned ones do, and where none is pruned either, all.
    """

    settings: dict[str, str]  # of the varied keys, the seed apart; a key that a run does not have is not in it
    runs: list[Run]

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.status == FINISHED]

    @property
    def counted(self) -> list[Run]:
        return self.finished or [run for run in self.runs if run.status == PRUNED] or self.runs

    def values(self, name: str) -> list[float]:
        return numbers(self.counted, name)


def numbers(runs: Sequence[Run], name: str) -> list[float]:
    """One of the numbers of those runs that have it."""
    return [run.numbers[name] for run in runs if name in run.numbers]


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1): None for one value. Both are nan and None where a mean is none."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def grouped(study: Study) -> list[Group]:
    """The study's groups, the best mean objective first, those without a finished run last."""
    found: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in study.runs:
        place = tuple((key, run.settings[key]) for key in study.keys if key in run.settings)
        found.setdefault(place, []).append(run)

    def rank(group: Group) -> tuple[bool, float]:
        mean, _ = mean_std(group.values(study.objective))
        return not group.finished, study.order(mean)

    return sorted((Group(dict(place), runs) for place, runs in found.items()), key=rank)


def best_group(study: Study, groups: Sequence[Group]) -> Group | None:
    """The first of `groups`, as they are ordered, if it has a finished run with an objective."""
    return groups[0] if groups[0].finished and groups[0].values(study.objective) else None


@dataclass(frozen=True)
class Measure:
    """One of the runs' numbers, by name, and how it is written: accuracies in percent."""

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
        return self.word + (", %" if self.percent else "")

    @property
    def head(self) -> str:
        return self.axis.replace("accuracy,", "acc,")

    def scaled(self, values: Iterable[float]) -> list[float]:
        return [100 * value if self.percent else value for value in values]

    def written(self, value: float, std: float | None = None) -> str:
        texts = [f"{number:,.{self.decimals}f}" for number in self.scaled([value] if std is None else [value, std])]
        return " ± ".join(texts)

    def column(self, rows: Iterable[Sequence[Run]]) -> Column:
        return Column(self.head, [self.cell(numbers(runs, self.name)) for runs in rows])

    def cell(self, values: Sequence[float]) -> Cell:
        """What a row's values are together: their mean and its scatter, or where that says little one number."""
        if not values:
            return Cell(MISSING)
        mean, std = mean_std(values)
        middle = max(values) if self.name == "peak_memory_mib" else mean
        return Cell(self.written(middle, None if self.name in ONE_NUMBER else std), order=middle)


def measure(name: str, runs: Sequence[Run] = ()) -> Measure:
    """runs: all whose minutes are written, which are finer where even the longest has few."""
    longest = max((run.numbers.get("minutes", 0.0) for run in runs), default=0.0)
    if name == "minutes":
        return Measure(name, 1 if longest >= 10 else 2 if longest >= 0.2 else 3)
    return Measure(name, DECIMALS.get(re.split("[/_]", name)[-1], 4))


def shown(value: str) -> str:
    """A value as it was typed; a drawn number (0.012345678901) with four digits."""
    return f"{float(value):.4g}" if NUMBER.fullmatch(value) and len(value) > 8 else value


def label(settings: Mapping[str, str], keys: Sequence[str]) -> str:
    """What a configuration is, in a few words: `resnet18 · lr 0.1 · step`."""
    words = []
    for key, name in zip(keys, short_names(keys), strict=True):
        if key in settings:
            value = shown(settings[key])
            speaks = "." not in key and re.fullmatch(r"[A-Za-z]\w*", value) and value not in ("true", "false", "null")
            words.append(value if speaks else f"{name} {value}")
    return " · ".join(words) or "default"


def setting_columns(settings: Sequence[Mapping[str, str]], keys: Sequence[str]) -> list[Column]:
    """A column a key, a row for each of `settings`."""
    return [
        Column(name, [setting_cell(chosen.get(key, MISSING)) for chosen in settings], numeric=False)
        for key, name in zip(keys, short_names(keys), strict=True)
    ]


def setting_cell(value: str) -> Cell:
    return Cell(shown(value), order=float(value) if NUMBER.fullmatch(value) else value, whole=value)
