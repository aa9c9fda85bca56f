"""Which choice is better: the configurations as a grid over the keys, and the effect of each key by itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from iolaus.report.document import Cell, Column, Section, Table, Text
from iolaus.report.groups import MISSING, Group, label, mean_std, measure, setting_columns, shown
from iolaus.report.runs import Study, natural, short_names

LARGEST_GRID = 1000
MOST_KEYS = 4  # that one table shows


@dataclass(frozen=True)
class Grid:
    """Every combination, or nearly, of the values of some keys: an axis for each key."""

    choices: dict[str, list[str]]  # of each key, in natural order
    cells: np.ndarray  # of Group; None for a combination that was not run
    means: np.ndarray  # the objective; nan where a cell has no finished run


@dataclass(frozen=True)
class Effect:
    """What each value of one key does."""

    key: str
    values: list[str]
    means: np.ndarray  # marginal: the unweighted mean over the cells that have the value; nan where none is finished
    counts: np.ndarray  # of those cells
    wins: np.ndarray  # how often the value is the best of a row of cells that differ in this key only
    matched: int  # the number of those rows, without those that lack a cell


def comparison(study: Study, groups: Sequence[Group]) -> list[Section]:
    """For a grid over several keys: its cells, if they fit into one table, and what each choice does."""
    grid = as_grid(study, groups)
    if grid is None or len(study.keys) < 2 or np.isfinite(grid.means).sum() < 2:
        return []
    return [*([grid_section(study, grid)] if len(study.keys) <= MOST_KEYS else []), effect_section(study, grid)]


def as_grid(study: Study, groups: Sequence[Group]) -> Grid | None:
    """The groups as a grid; None for a random search: fewer than half of the combinations, or values that come once."""
    places = [[group.settings.get(key, MISSING) for key in study.keys] for group in groups]
    choices = [sorted(set(values), key=natural) for values in zip(*places, strict=True)]
    shape = list(map(len, choices))
    size = math.prod(shape)
    if not shape or size > LARGEST_GRID or len(groups) < size / 2 or len(groups) < 1.5 * max(shape):
        return None
    cells, means = np.full(shape, None), np.full(shape, np.nan)
    for group, place in zip(groups, places, strict=True):
        at = tuple(values.index(value) for values, value in zip(choices, place, strict=True))
        cells[at] = group
        if group.finished:
            means[at], _ = mean_std(group.values(study.objective))
    return Grid(dict(zip(study.keys, choices, strict=True)), cells, means)


def effects(study: Study, grid: Grid) -> list[Effect]:
    """The effect of each key, the one whose marginal means lie furthest apart first."""
    found = []
    for axis, (key, values) in enumerate(grid.choices.items()):
        means = np.moveaxis(grid.means, axis, -1).reshape(-1, len(values))
        known = ~np.isnan(means)
        counts = known.sum(axis=0)
        marginal = np.where(known, means, 0).sum(axis=0) / np.where(counts, counts, np.nan)
        matched = means[known.all(axis=1)]
        best = (np.max if study.maximize else np.min)(matched, axis=1, keepdims=True)
        found.append(Effect(key, values, marginal, counts, (matched == best).sum(axis=0), len(matched)))
    return sorted(found, key=lambda effect: np.nanmax(effect.means) - np.nanmin(effect.means), reverse=True)


def warmth(values: np.ndarray, maximize: bool) -> np.ndarray:
    """From 0 to 1 between the worst and the best of some values; one that is far worse than the rest counts as 0."""
    best, worst = (np.nanmax(values), np.nanmin(values)) if maximize else (np.nanmin(values), np.nanmax(values))
    far = best + 3 * (np.nanmedian(values) - best)
    end = far if 0 < abs(far - best) < abs(worst - best) else worst
    return np.clip((values - end) / (best - end), 0.0, 1.0) if best != end else np.ones_like(values)


def grid_section(study: Study, grid: Grid) -> Section:
    """The last key across, of four the last two; the others down."""
    objective, heat = measure(study.objective), warmth(grid.means, study.maximize)
    split = -2 if len(study.keys) == MOST_KEYS else -1
    down, across = study.keys[:split], study.keys[split:]

    def cell(group: Group | None, heat: float) -> Cell:
        if group is None or math.isnan(heat):
            return Cell("" if group is None else group.runs[0].status)
        return Cell(objective.cell(group.values(objective.name)).text, heat=heat, strong=heat == 1)

    def name(values: Sequence[str]) -> str:
        if len(across) == 1:  # nothing else says the key
            return f"{short_names(across)[0]} {shown(values[0])}"
        return label(dict(zip(across, values, strict=True)), across)

    rows = [dict(zip(down, values, strict=True)) for values in product(*(grid.choices[key] for key in down))]
    names = map(name, product(*(grid.choices[key] for key in across)))
    flat = zip(grid.cells.reshape(len(rows), -1).T, heat.reshape(len(rows), -1).T, strict=True)
    columns = [Column(name, list(map(cell, *pair))) for name, pair in zip(names, flat, strict=True)]
    unit = " in percent" if objective.percent else ""
    note = f"{objective.word.capitalize()}{unit}: the stronger the colour, the better."
    return Section("Grid", [Table([*setting_columns(rows, down), *columns], heads=len(down)), Text(note, "note")])


def effect_section(study: Study, grid: Grid) -> Section:
    """Marginal means, the key that matters most first."""
    objective, found, rows = measure(study.objective), effects(study, grid), []
    for effect in found:
        best = (np.nanmax if study.maximize else np.nanmin)(effect.means)
        known = np.flatnonzero(effect.counts)
        for i, heat in zip(known, warmth(effect.means, study.maximize)[known], strict=True):
            value, gap = effect.values[i], effect.means[i] - best
            wins = gap == 0 and len(known) > 1
            behind = f"{'+' if gap > 0 else '−'}{objective.written(abs(gap))}"
            rows.append((
                effect.key if i == known[0] else "", Cell(shown(value), strong=wins, whole=value),
                Cell(objective.written(effect.means[i]), strong=wins, heat=heat), behind if gap else MISSING,
                f"{effect.wins[i]} of {effect.matched}" if effect.matched else MISSING, str(effect.counts[i]),
            ))  # fmt: skip
    heads = ("key", "value", f"mean {objective.head}", "to the best", "best in", "n")
    columns = [Column(head, cells, numeric=head not in heads[:2]) for head, *cells in zip(heads, *rows, strict=True)]
    note = (
        "Mean: over the n configurations with this value that are finished. Best in: how often the value wins "
        "where all other keys are equal."
    )
    if any(len(set(effect.counts[effect.counts > 0])) > 1 for effect in found):
        note += " Where n differs within a key, the means are over different configurations."
    return Section("Effect of each key", [Table(columns, heads=2), Text(note, "note")])
