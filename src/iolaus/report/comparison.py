"""Which choice is better: the cells of a grid, tinted, and the effect of each key by itself."""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from iolaus.report.document import Cell, Column, Section, Table, Text
from iolaus.report.groups import MISSING, Effect, Grid, Group, as_grid, effects
from iolaus.report.runs import Study, natural
from iolaus.report.wording import label, metric, setting_cell, setting_columns, shown
from iolaus.tables import short_names

MOST_KEYS = 4  # that one table shows


def comparison(study: Study, groups: Sequence[Group]) -> list[Section]:
    """For a grid over several keys: its cells, if they fit into one table, and what each choice does."""
    grid = as_grid(study, groups)
    if grid is None or len(study.keys) < 2 or len(grid.means) < 2:
        return []
    cells = [grid_section(study, grid)] if len(study.keys) <= MOST_KEYS else []
    return [*cells, effect_section(study, grid)]


def grid_section(study: Study, grid: Grid) -> Section:
    """The last key across, of four the last two; the others down."""
    split = -2 if len(study.keys) == MOST_KEYS else -1
    down, across = study.keys[:split], study.keys[split:]
    places = sorted(grid.cells, key=by_nature)
    firsts = dict.fromkeys(place[:split] for place in places)
    seconds = sorted(dict.fromkeys(place[split:] for place in places), key=by_nature)
    heat = warmth(list(grid.means.values()), study.maximize)
    measure = metric(study.objective)

    def cell(place: tuple[str, ...]) -> Cell:
        mean, group = grid.means.get(place), grid.cells.get(place)
        if mean is None or group is None:
            return Cell("" if group is None else Counter(run.status for run in group.runs).most_common(1)[0][0])
        text = measure.cell(group.values(study.value)).text
        return Cell(text, heat=heat(mean), strong=heat(mean) == 1.0)

    rows = [[*map(setting_cell, first), *(cell(first + second) for second in seconds)] for first in firsts]
    columns = [*setting_columns(down), *(Column(headline(across, second)) for second in seconds)]
    note = (
        f"{measure.word.capitalize()}{' in percent' if measure.percent else ''}: the stronger the colour, the better."
    )
    return Section("Grid", [Table(columns, rows, heads=len(down)), Text(note, "note")])


def headline(keys: Sequence[str], values: Sequence[str]) -> str:
    """The name of a column: the key is said where there is one only, as nothing else says it."""
    if len(keys) == 1:
        return f"{short_names(keys)[0]} {shown(values[0])}"
    return label(dict(zip(keys, values, strict=True)), keys)


def by_nature(values: Sequence[str]) -> list[tuple[int, float, str]]:
    return [natural(value) for value in values]


def warmth(values: Sequence[float], maximize: bool) -> Callable[[float], float]:
    """From 0 to 1 between the worst and the best of some values; one that is far worse than the rest counts as 0."""
    best, worst = (max(values), min(values)) if maximize else (min(values), max(values))
    far = best + 3 * (statistics.median(values) - best)
    end = far if 0 < abs(far - best) < abs(worst - best) else worst
    return lambda value: 1.0 if end == best else min(max((value - end) / (best - end), 0.0), 1.0)


def effect_section(study: Study, grid: Grid) -> Section:
    """Marginal means, the key that matters most first."""
    found = effects(study, grid)
    by_key = {key: [e for e in found if e.key == key] for key in dict.fromkeys(e.key for e in found)}
    rows = [row for same in by_key.values() for row in effect_rows(study, same)]
    columns = [Column("key", False), Column("value", False), Column(f"mean {metric(study.objective).name}"),
               Column("to the best"), Column("best in"), Column("n")]  # fmt: skip
    note = (
        "Mean: over the n configurations with this value that are finished. Best in: how often the value wins "
        "where all other keys are equal."
    )
    if any(len({e.cells for e in same}) > 1 for same in by_key.values()):
        note += " Where n differs within a key, the means are over different configurations."
    return Section("Effect of each key", [Table(columns, rows, heads=2), Text(note, "note")])


def effect_rows(study: Study, same: Sequence[Effect]) -> list[list[Cell]]:
    """The values of one key."""
    measure, means = metric(study.objective), [effect.mean for effect in same]
    heat, rows = warmth(means, study.maximize), []
    best = (max if study.maximize else min)(means)
    for i, effect in enumerate(same):
        wins = effect.mean == best and len(same) > 1
        behind = f"{measure.factor * (effect.mean - best):+.{measure.decimals}f}".replace("-", "−")
        rows.append([
            Cell(effect.key if i == 0 else ""), Cell(shown(effect.value), strong=wins, whole=effect.value),
            Cell(measure.written(effect.mean), strong=wins, heat=heat(effect.mean)),
            Cell(MISSING if effect.mean == best else behind),
            Cell(f"{effect.wins} of {effect.matched}" if effect.matched else MISSING), Cell(str(effect.cells)),
        ])  # fmt: skip
    return rows
