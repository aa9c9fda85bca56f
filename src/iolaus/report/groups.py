"""Runs that differ only in their seed, together: mean and standard deviation, order, and what each choice does."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from iolaus.report.runs import FINISHED, PRUNED, Run, Study, natural

Metric = Callable[[Run], float | None]


@dataclass(frozen=True)
class Group:
    """The runs of one configuration, one for each seed.

    Those that are finished count. Where none is, the pruned ones do, and where none is pruned either, all.
    """

    settings: dict[str, str]  # of the varied keys, the seed apart; a key that a run does not have is not in it
    runs: list[Run]

    @property
    def counted(self) -> list[Run]:
        for status in (FINISHED, PRUNED):
            if runs := [run for run in self.runs if run.status == status]:
                return runs
        return self.runs

    @property
    def is_finished(self) -> bool:
        return any(run.status == FINISHED for run in self.runs)

    def values(self, metric: Metric) -> list[float]:
        return [value for run in self.counted if (value := metric(run)) is not None]


def grouped(study: Study) -> list[Group]:
    """The study's groups, the best mean objective first, those without a finished run last."""
    found: dict[tuple[str | None, ...], list[Run]] = {}
    for run in study.runs:
        found.setdefault(tuple(run.settings.get(key) for key in study.keys), []).append(run)
    groups = [
        Group({key: value for key, value in zip(study.keys, values, strict=True) if value is not None}, runs)
        for values, runs in found.items()
    ]

    def rank(group: Group) -> tuple[bool, float]:
        mean, _ = mean_std(group.values(study.value))
        worst = mean is None or math.isnan(mean)
        return not group.is_finished, math.inf if worst else -mean if study.maximize else mean  # type: ignore[operator, return-value]

    return sorted(groups, key=rank)


def best_group(study: Study, groups: Sequence[Group]) -> Group | None:
    """The first of `groups`, as they are ordered, if it has a finished run with an objective."""
    first = groups[0] if groups else None
    return first if first is not None and first.is_finished and first.values(study.value) else None


def best_run(study: Study, group: Group) -> Run:
    """The run of a group with the best objective."""
    sign = 1 if study.maximize else -1
    return max(group.counted, key=lambda run: -math.inf if (v := study.value(run)) is None else sign * v)


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n − 1); None for what the number of values does not give."""
    if not values:
        return None, None
    if not all(map(math.isfinite, values)):
        return math.nan, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Grid:
    """Every combination, or nearly, of the values of some keys."""

    values: dict[str, list[str]]  # of each key, in natural order
    cells: dict[tuple[str, ...], Group]
    means: dict[tuple[str, ...], float]  # the objective, of the cells that are finished


@dataclass(frozen=True)
class Effect:
    """What one value of one key does."""

    key: str
    value: str
    mean: float  # marginal: the unweighted mean over the cells of the grid that have this value
    cells: int
    wins: int  # among the sets of cells that differ in this key only and are complete, where this value is the best
    matched: int  # the number of those sets


MISSING = "–"  # the value of a key that a run does not have
LARGEST_GRID = 1000


def as_grid(study: Study, groups: Sequence[Group]) -> Grid | None:
    """The groups as a grid; None for a random search: fewer than half of the combinations, or values that come once."""
    values = {key: sorted({group.settings.get(key, MISSING) for group in groups}, key=natural) for key in study.keys}
    size = math.prod(map(len, values.values()))
    longest = max(map(len, values.values()), default=0)
    if not values or size > LARGEST_GRID or len(groups) < size / 2 or len(groups) < 1.5 * longest:
        return None
    cells = {tuple(group.settings.get(key, MISSING) for key in study.keys): group for group in groups}
    means = {
        place: mean
        for place, group in cells.items()
        if group.is_finished and (mean := mean_std(group.values(study.value))[0]) is not None and math.isfinite(mean)
    }
    return Grid(values, cells, means)


def effects(study: Study, grid: Grid) -> list[Effect]:
    """The effect of each value of each key, the key whose marginal means lie furthest apart first."""
    by_key = [
        [e for value in values if (e := effect(study, grid, i, value)) is not None]
        for i, values in enumerate(grid.values.values())
    ]

    def reach(found: list[Effect]) -> float:
        return max((e.mean for e in found), default=0.0) - min((e.mean for e in found), default=0.0)

    return [e for found in sorted(by_key, key=reach, reverse=True) for e in found]


def effect(study: Study, grid: Grid, position: int, value: str) -> Effect | None:
    """The effect of a value of the key at `position`; None where no cell of it is finished."""
    key = list(grid.values)[position]
    means = [mean for place, mean in grid.means.items() if place[position] == value]
    if not means:
        return None
    better = max if study.maximize else min
    wins = matched = 0
    for others in product(*(values for i, values in enumerate(grid.values.values()) if i != position)):
        places = {v: (*others[:position], v, *others[position:]) for v in grid.values[key]}
        if all(place in grid.means for place in places.values()):
            matched += 1
            wins += grid.means[places[value]] == better(grid.means[place] for place in places.values())
    return Effect(key, value, statistics.fmean(means), len(means), wins, matched)
