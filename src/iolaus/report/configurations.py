"""Configurations: the runs that differ only in their seed or fold, together. Their order, names and numbers."""

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from iolaus.files.layout import FAILED, FINISHED, PRUNED
from iolaus.report.document import Cell, Column
from iolaus.report.runs import RUNNING, UNFINISHED, Run, Study, short_names
from iolaus.show.numbers import MISSING, PLAIN_NUMBER, Metric, shorten_number

TIE_BREAKER = "val/loss"  # as of epochs that are equal by their objective
PROGRESS = (UNFINISHED, FAILED, RUNNING, PRUNED, FINISHED)  # of two equal runs the later in this list counts
SILENT = ("true", "false", "null", "none")  # values that say nothing without their key
SPEAKING_GROUPS = ("dataset", "model", "optimizer", "scheduler", "loss", "augmentation")  # whose options are well known
ONE_NUMBER = ("epochs", "minutes", "images_per_second", "peak_memory_mib")  # for several seeds, too


@dataclass(frozen=True)
class Configuration:
    """The runs of one configuration, one for each seed and fold."""

    settings: dict[str, str]  # of the varied keys without seed and fold; a key that a run does not have is not in it
    runs: list[Run]

    @property
    def finished_runs(self) -> list[Run]:
        return [run for run in self.runs if run.status == FINISHED]

    @property
    def compared_runs(self) -> list[Run]:
        """The finished runs; if there is none, the pruned ones; if there is none either, all."""
        return self.finished_runs or [run for run in self.runs if run.status == PRUNED] or self.runs

    def values(self, name: str) -> list[float]:
        return values_of(self.compared_runs, name)

    def by_repeat(self, name: str) -> dict[str, float]:
        """One of the numbers by seed and fold."""
        return {run.repeat: run.numbers[name] for run in self.compared_runs if name in run.numbers}


def values_of(runs: Sequence[Run], name: str) -> list[float]:
    """One of the numbers of those runs that have it."""
    return [run.numbers[name] for run in runs if name in run.numbers]


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1), which is None for one value.

    NaN and None if there is no value, or one that is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        return math.nan, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def merit_of(study: Study, run: Run) -> tuple[float, float]:
    """A sort key for the runs of a study: the best objective first, of equal ones the lower validation loss."""
    return study.order(study.objective_value(run)), run.numbers.get(TIE_BREAKER, math.inf)


def group_runs(study: Study) -> list[Configuration]:
    """The study's configurations, the best mean objective first, those without a finished run last.

    Of equal ones that of the lower mean validation loss comes first.
    Runs that are equal in everything, seed and fold included, are one: the newest of those that came furthest.
    """
    groups: dict[tuple[tuple[str, str], ...], dict[str, Run]] = {}
    number = {run.name: i for i, run in enumerate(study.runs)}
    for run in sorted(study.runs, key=lambda run: PROGRESS.index(run.status) if run.status in PROGRESS else -1):
        place = tuple((key, run.settings[key]) for key in study.keys if key in run.settings)
        groups.setdefault(place, {})[run.repeat] = run

    def rank(configuration: Configuration) -> tuple[bool, float, float]:
        (mean, _), (loss, _) = (mean_std(configuration.values(name)) for name in (study.objective, TIE_BREAKER))
        return not configuration.finished_runs, study.order(mean), math.inf if math.isnan(loss) else loss

    by_number = [
        Configuration(dict(place), sorted(runs.values(), key=lambda run: number[run.name]))
        for place, runs in groups.items()
    ]
    return sorted(sorted(by_number, key=lambda place: number[place.runs[0].name]), key=rank)


def best_configuration(study: Study, ranking: Sequence[Configuration]) -> Configuration | None:
    """The first of a ranking (see `group_runs`), if it has a finished run with an objective."""
    return ranking[0] if ranking[0].finished_runs and ranking[0].values(study.objective) else None


def longest_minutes(runs: Sequence[Run]) -> float:
    return max(values_of(runs, "minutes"), default=0.0)


def metric_column(metric: Metric, rows: Iterable[Sequence[Run]]) -> Column:
    """A column with one number for the runs of each row."""
    return Column(metric.head, [metric_cell(metric, values_of(runs, metric.name)) for runs in rows])


def metric_cell(metric: Metric, values: Sequence[float]) -> Cell:
    """Mean and deviation of a row's values; of some metrics the mean alone, and of memory the largest value."""
    if not values:
        return Cell(MISSING)
    mean, std = mean_std(values)
    middle = max(values) if metric.name == "peak_memory_mib" else mean
    return Cell(metric.format(middle, None if metric.name in ONE_NUMBER else std), order=middle)


def setting_columns(settings: Sequence[Mapping[str, str]], keys: Sequence[str]) -> list[Column]:
    """A column for each key, with a row for each of `settings`."""
    return [
        Column(name, [setting_cell(row.get(key, MISSING)) for row in settings], numeric=False)
        for key, name in zip(keys, short_names(keys), strict=True)
    ]


def setting_cell(value: str, strong: bool = False) -> Cell:
    order = float(value) if PLAIN_NUMBER.fullmatch(value) else value
    return Cell(shorten_number(value), order=order, whole=value, strong=strong)


def name_settings(settings: Mapping[str, str], keys: Sequence[str]) -> str:
    """The name of a configuration in a few words: `resnet18 · lr 0.1 · step`."""
    words = []
    for key, name in zip(keys, short_names(keys), strict=True):
        if key in settings:
            value = shorten_number(settings[key])
            speaks = key in SPEAKING_GROUPS and re.fullmatch(r"[A-Za-z]\w*", value) and value not in SILENT
            words.append(value if speaks else f"{name} {value}")
    return " · ".join(words) or "default"
