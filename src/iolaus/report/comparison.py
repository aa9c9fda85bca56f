"""Which choice is better: the configurations as a grid over the keys, and the effect of each key by itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from iolaus.report.configurations import (
    Configuration,
    mean_std,
    metric_cell,
    name_settings,
    setting_cell,
    setting_columns,
)
from iolaus.report.document import Cell, Column, Section, Table, Text
from iolaus.report.runs import Study, natural_key, short_names
from iolaus.show.numbers import MISSING, metric_of, shorten_number

LARGEST_GRID = 1000
MOST_KEYS = 4  # that one table shows


@dataclass(frozen=True)
class ResultGrid:
    """The configurations as an array with an axis for each varied key."""

    choices: dict[str, list[str]]  # of each key, in natural order
    cells: NDArray[np.object_]  # of Configuration; None for a combination that was not run
    means: NDArray[np.float64]  # of the objective; NaN for a cell without a finished run


@dataclass(frozen=True)
class Effect:
    """The effect of each value of one key."""

    key: str
    values: list[str]
    means: NDArray[np.float64]  # marginal: the unweighted mean over the cells with the value; NaN if none is finished
    counts: NDArray[np.int64]  # of those cells
    wins: NDArray[np.int64]  # how often the value is the best of a row of cells that differ in this key only
    num_rows: int  # complete rows of such cells


def comparison_sections(study: Study, ranking: Sequence[Configuration]) -> list[Section]:
    """For a grid over several keys: its cells, if they fit into one table, and the effect of each key."""
    grid = build_grid(study, ranking)
    if grid is None or len(study.keys) < 2 or np.isfinite(grid.means).sum() < 2:
        return []
    return [*([grid_section(study, grid)] if len(study.keys) <= MOST_KEYS else []), effect_section(study, grid)]


def build_grid(study: Study, ranking: Sequence[Configuration]) -> ResultGrid | None:
    """The grid; None for a random search: fewer than half of the combinations, or values that occur once."""
    places = [[configuration.settings.get(key, MISSING) for key in study.keys] for configuration in ranking]
    choices = [sorted(set(values), key=natural_key) for values in zip(*places, strict=True)]
    shape = list(map(len, choices))
    size = math.prod(shape)
    if not shape or size > LARGEST_GRID or len(ranking) < size / 2 or len(ranking) < 1.5 * max(shape):
        return None
    cells, means = np.full(shape, None), np.full(shape, np.nan)
    for configuration, place in zip(ranking, places, strict=True):
        at = tuple(values.index(value) for values, value in zip(choices, place, strict=True))
        cells[at] = configuration
        if configuration.finished_runs:
            means[at], _ = mean_std(configuration.values(study.objective))
    return ResultGrid(dict(zip(study.keys, choices, strict=True)), cells, means)


def compute_effects(study: Study, grid: ResultGrid) -> list[Effect]:
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


def scale_heat(values: NDArray[np.float64], maximize: bool) -> NDArray[np.float64]:
    """Scale values to [0, 1] from the worst to the best; one that is far worse than the rest becomes 0."""
    best, worst = (np.nanmax(values), np.nanmin(values)) if maximize else (np.nanmin(values), np.nanmax(values))
    far = best + 3 * (np.nanmedian(values) - best)
    end = far if 0 < abs(far - best) < abs(worst - best) else worst
    scaled: NDArray[np.float64] = (
        np.clip((values - end) / (best - end), 0.0, 1.0) if best != end else np.ones_like(values)
    )
    return scaled


def grid_section(study: Study, grid: ResultGrid) -> Section:
    """The cells as a table, with the last key across (the last two of four keys) and the others down."""
    objective, heat = metric_of(study.objective), scale_heat(grid.means, study.maximize)
    split = -2 if len(study.keys) == MOST_KEYS else -1
    down, across = study.keys[:split], study.keys[split:]

    def cell(configuration: Configuration | None, heat: float) -> Cell:
        if configuration is None or math.isnan(heat):
            return Cell("" if configuration is None else configuration.runs[0].status)
        text = metric_cell(objective, configuration.values(objective.name)).text
        return Cell(text, heat=heat, strong=heat == 1)

    def name(values: Sequence[str]) -> str:
        if len(across) == 1:  # nothing else names the key
            return f"{short_names(across)[0]} {shorten_number(values[0])}"
        return name_settings(dict(zip(across, values, strict=True)), across)

    rows = [dict(zip(down, values, strict=True)) for values in product(*(grid.choices[key] for key in down))]
    names = map(name, product(*(grid.choices[key] for key in across)))
    flat = zip(grid.cells.reshape(len(rows), -1).T, heat.reshape(len(rows), -1).T, strict=True)
    columns = [Column(name, list(map(cell, *pair))) for name, pair in zip(names, flat, strict=True)]
    unit = " in percent" if objective.percent else ""
    note = f"{objective.word.capitalize()}{unit}: the stronger the colour, the better."
    return Section("Grid", [Table([*setting_columns(rows, down), *columns], heads=len(down)), Text(note, "note")])


def effect_section(study: Study, grid: ResultGrid) -> Section:
    """The marginal means, the most important key first."""
    objective, found, rows = metric_of(study.objective), compute_effects(study, grid), []
    for effect in found:
        best = (np.nanmax if study.maximize else np.nanmin)(effect.means)
        known = np.flatnonzero(effect.counts)
        for i, heat in zip(known, scale_heat(effect.means, study.maximize)[known], strict=True):
            gap = effect.means[i] - best
            wins = gap == 0 and len(known) > 1
            behind = f"{'+' if gap > 0 else '−'}{objective.format(abs(gap))}" if gap else MISSING
            mean = Cell(objective.format(effect.means[i]), strong=wins, heat=heat)
            best_in = f"{effect.wins[i]} of {effect.num_rows}" if effect.num_rows else MISSING
            key = effect.key if i == known[0] else ""
            rows.append((key, setting_cell(effect.values[i], wins), mean, behind, best_in, str(effect.counts[i])))
    heads = ("key", "value", f"mean {objective.head}", "to the best", "best in", "n")
    columns = [Column(head, cells, numeric=head not in heads[:2]) for head, *cells in zip(heads, *rows, strict=True)]
    note = (
        "Mean: over the n configurations with this value that are finished. Best in: how often the value wins "
        "where all other keys are equal."
    )
    if any(len(set(effect.counts[effect.counts > 0])) > 1 for effect in found):
        note += " Where n differs within a key, the means are over different configurations."
    return Section("Effect of each key", [Table(columns, heads=2), Text(note, "note")])
