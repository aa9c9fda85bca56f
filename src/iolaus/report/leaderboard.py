"""The leaderboard: a row for each configuration, accuracies first, with its distance to the best."""

from collections import Counter
from collections.abc import Sequence

from iolaus.report.configurations import (
    Configuration,
    best_configuration,
    longest_minutes,
    metric_column,
    setting_columns,
)
from iolaus.report.document import Cell, Column, Section, Table, Text
from iolaus.report.plots import choose_styles
from iolaus.report.runs import MOST_ROWS, Run, Study, format_counts
from iolaus.report.significance import LEVEL, Difference, compare_means
from iolaus.report.summary import list_repeats
from iolaus.show.numbers import MISSING, metric_of, time_metric

KEYS_IN_FRONT = 6  # at most, of the objective
# after the objective
ACCURACIES = ("val/accuracy", "test/accuracy", "test/tta_accuracy", "train/accuracy")
LOSSES = ("val/loss", "test/loss", "train/loss")
COST_NUMBERS = ("epochs", "images_per_second", "peak_memory_mib")
FURTHER = ("test/balanced_accuracy", "test/f1", "test/top5_accuracy")  # last, where a narrow page is scrolled


def leaderboard_section(study: Study, ranking: Sequence[Configuration]) -> Section:
    """One row for each configuration, the best objective first, with those numbers that some run has."""
    first, styles = ranking[:MOST_ROWS], choose_styles(study, ranking)
    ranks = [
        Cell(str(i + 1) if place.finished_runs else "", order=i, style=styles[i] if study.keys else None)
        for i, place in enumerate(first)
    ]
    names = dict.fromkeys((study.objective, *ACCURACIES, *LOSSES))
    time = time_metric(longest_minutes(study.runs))
    metrics = [*map(metric_of, names), *([time] if time.name not in names else [])]
    metrics += map(metric_of, [name for name in (*COST_NUMBERS, *FURTHER) if name not in names])
    compared = [place.compared_runs for place in first]
    states = [Counter(run.status for run in place.runs) for place in first]
    statuses = [next(iter(state)) if len(state) == 1 else format_counts(state) for state in states]
    measured = [metric_column(m, compared) for m in metrics if any(m.name in run.numbers for run in study.runs)]
    planned = [place.settings.get("trainer.epochs") for place in first]
    objective, *others = [c for c in measured if c.name != "epochs" or [text_of(cell) for cell in c.cells] != planned]
    counts = Column("n", [str(len(runs)) for runs in compared])
    columns, same = fold_columns([*others, counts, Column("status", statuses, numeric=False)])
    note = f"Values at the last epoch; in the order of {study.objective}."
    if any(len(place.compared_runs) > 1 for place in ranking):
        note += (
            f" Mean ± sample standard deviation over n runs that differ only in {list_repeats(study)}; "
            "epochs, time and images/s: mean, memory: the largest."
        )
    if distances := distance_column(study, ranking):
        note += (
            f" To the best: the difference and its {100 * LEVEL:.0f} % confidence interval, in pairs of the same "
            f"{list_repeats(study).removeprefix('the ')} where there are two, else Welch's; each interval by itself. "
            "With 0 in it, the data can't tell the two apart."
        )
    if same:
        note += f" The same in all rows: {', '.join(same)}."
    if len(ranking) > MOST_ROWS:
        note += f" {len(ranking) - MOST_ROWS} more are below, under All runs."
    settings, values = setting_columns([place.settings for place in first], study.keys), [objective, *distances]
    is_crowded = len(settings) > KEYS_IN_FRONT  # so many keys that they would push what they lead to out of sight
    table = Table(
        [Column("", ranks, numeric=False), *(values + settings if is_crowded else settings + values), *columns],
        best=0 if best_configuration(study, ranking) else None,
        heads=1 if is_crowded else 1 + len(settings),
        sortable=True,
    )
    return Section("Leaderboard", [table, Text(note, "note")])


def distance_column(study: Study, ranking: Sequence[Configuration]) -> list[Column]:
    """The difference of each configuration to the best one with its interval; none where no run is repeated."""
    best, *others = ranking[:MOST_ROWS]
    differences = [compare_places(study, place, best) if place.finished_runs else None for place in others]
    if not any(differences):
        return []
    metric = metric_of(study.objective)

    def cell(difference: Difference | None) -> Cell:
        if difference is None:
            return Cell(MISSING)
        mean, low, high = (sign(metric.format(value)) for value in (difference.mean, difference.low, difference.high))
        return Cell(f"{mean} ({low} to {high})", order=difference.mean)

    unit = ", %" if metric.percent else ""
    return [Column(f"to the best ({100 * LEVEL:.0f} % interval){unit}", [Cell(MISSING), *map(cell, differences)])]


def compare_places(study: Study, first: Configuration, second: Configuration) -> Difference | None:
    """Compare the objective of two configurations (see `compare_means`), those of seed and fold in common in pairs."""
    return compare_means(first.by_repeat(study.objective), second.by_repeat(study.objective))


def sign(number: str) -> str:
    """A formatted number with its sign: `+1.20`, `−0.30`."""
    return f"−{number[1:]}" if number.startswith("-") else f"+{number}"


def fold_columns(columns: Sequence[Column]) -> tuple[list[Column], list[str]]:
    """The columns that vary, and `name value` of those that don't; a table of one row keeps all of them."""
    kept, same = [], []
    for column in columns:
        texts = set(map(text_of, column.cells))
        if len(column.cells) > 1 and len(texts) == 1:
            same.append(f"{column.name} {texts.pop()}")
        else:
            kept.append(column)
    return kept, same


def text_of(cell: Cell | str) -> str:
    return cell.text if isinstance(cell, Cell) else cell


def run_numbers(study: Study, runs: Sequence[Run], names: Sequence[str]) -> list[Column]:
    """A column for each of some numbers, then epochs and time, with a row for each run."""
    metrics = [*map(metric_of, (*names, "epochs")), time_metric(longest_minutes(study.runs))]
    return [metric_column(metric, ([run] for run in runs)) for metric in metrics]
