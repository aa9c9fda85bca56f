"""The sections of a report, and the whole of it."""

from collections import Counter
from collections.abc import Sequence

from iolaus.checkpoint import COLUMNS
from iolaus.report import wording
from iolaus.report.comparison import comparison
from iolaus.report.document import Block, Cell, Column, Document, Gallery, Section, Table, Text
from iolaus.report.groups import MISSING, Group, best_group, grouped
from iolaus.report.plots import legend, pictures, styles
from iolaus.report.runs import FAILED, FINISHED, PRUNED, Study, inside, number, read_yaml
from iolaus.report.summary import head
from iolaus.report.trial_plots import search_pictures
from iolaus.report.trials import Search, read_search
from iolaus.report.wording import Measure, folder_cell, label, metric, setting_cell, setting_cells, setting_columns

MOST_ROWS = 20
MOST_OPEN_ROWS = 24  # the table of all runs is folded away beyond


def whole_document(study: Study, foot: str) -> Document:
    """The report, the answer first."""
    groups = grouped(study)
    sections = [leaderboard(study, groups), *comparison(study, groups), *curves(study, groups), *search_section(study),
                *not_finished(study), all_runs(study)]  # fmt: skip
    return Document(study.folder.resolve().name, head(study, groups), sections, foot)


def measures(study: Study) -> list[Measure]:
    """The leaderboard's columns of numbers, the objective first, without those that no run has."""
    names = (study.objective, "val/accuracy", "test/accuracy", "train/accuracy", "train/loss", "test/loss")
    found = [*map(metric, dict.fromkeys(names)), wording.EPOCHS, wording.minutes(study.runs), wording.SPEED,
             wording.MEMORY]  # fmt: skip
    return [measure for measure in found if any(measure.get(run) is not None for run in study.runs)]


def leaderboard(study: Study, groups: Sequence[Group]) -> Section:
    """One row for each configuration, the best objective first."""
    columns, chosen = measures(study), styles(study, groups)
    rows = []
    for i, group in enumerate(groups[:MOST_ROWS]):
        states = Counter(run.status for run in group.runs)
        rows.append([
            Cell(str(i + 1) if group.is_finished else "", order=i, style=chosen[i] if chosen and study.keys else None),
            *setting_cells(group.settings, study.keys),
            *(measure.cell(group.values(measure.get)) for measure in columns),
            Cell(str(len(group.counted))), Cell(next(iter(states)) if len(states) == 1 else wording.counted(states)),
        ])  # fmt: skip
    names = [Column("", False), *setting_columns(study.keys), *(Column(measure.name) for measure in columns),
             Column("n"), Column("status", False)]  # fmt: skip
    best = 0 if best_group(study, groups) else None
    table = Table(names, rows, best=best, heads=1 + len(study.keys), sortable=len(rows) > 2)
    note = f"Values at the last epoch; in the order of {study.objective}."
    if any(len(group.counted) > 1 for group in groups):
        note += (
            " Mean ± sample standard deviation over n runs that differ only in the seed; epochs, minutes and images/s: "
            "mean, memory: the largest."
        )
    if len(groups) > MOST_ROWS:
        note += f" {len(groups) - MOST_ROWS} more are below, under All runs."
    return Section("Leaderboard", [table, Text(note, "note")])


def curves(study: Study, groups: Sequence[Group]) -> list[Section]:
    labels = [label(group.settings, study.keys) for group in groups]
    drawn = pictures(study, groups, labels)
    if not drawn:
        return []
    blocks: list[Block] = [Gallery(drawn, legend(study, groups, labels))]
    if any(len([run for run in group.runs if run.status == FINISHED]) > 1 for group in groups):
        blocks.append(
            Text("Thick: mean over the seeds, with a band of one standard deviation. Thin: each run.", "note")
        )
    return [Section("Curves", blocks)]


def search_section(study: Study) -> list[Section]:
    """What Optuna has tried: trials by state, the best, pictures, and what is left out."""
    search = read_search(study.folder, study.objectives)
    if search is None:
        return []
    drawn, notes = search_pictures(search)
    blocks: list[Block] = []
    if search.trials:
        blocks.append(Text(f"Optuna: {len(search.trials)} trials, {wording.counted(search.states)}."))
    if search.best:
        blocks.append(trial_table(study, search))
    if drawn:
        blocks.append(Gallery(drawn))
    return [Section("Search", [*blocks, *(Text(note, "note") for note in (*search.notes, *notes))])]


def trial_table(study: Study, search: Search) -> Table:
    """The best trial, or those of the Pareto front, with their parameters."""
    trials = sorted(search.best, key=lambda trial: trial.values[0], reverse=search.maximize[0])[:MOST_ROWS]
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    found = [metric(name) for name in search.names]
    rows = []
    for trial in trials:
        link = f"{trial.number}/" if (study.folder / str(trial.number)).is_dir() else None
        values = [measure.cell([value]) for measure, value in zip(found, trial.values, strict=True)]
        chosen = [setting_cell(str(trial.params.get(key, MISSING))) for key in keys]
        rows.append([Cell(str(trial.number), order=trial.number, link=link), *values, *chosen])
    first = "best trial" if len(search.names) == 1 else "on the Pareto front"
    names = [Column(first, False), *(Column(measure.name) for measure in found), *setting_columns(keys)]
    return Table(names, rows, heads=1, sortable=len(rows) > 2)


def not_finished(study: Study) -> list[Section]:
    """Failed runs with their error, and those that have no results yet."""
    runs = sorted((r for r in study.runs if r.status not in (FINISHED, PRUNED)), key=lambda run: run.status != FAILED)
    value, rows = metric(study.objective), []
    for run in runs[:MOST_ROWS]:
        planned = number(inside(read_yaml(run.folder / ".hydra" / "config.yaml"), "trainer", "epochs"))
        epochs = f"{len(run.history)} of {planned:.0f}" if planned else str(len(run.history))
        rows.append([Cell(label(run.settings, study.varied)), Cell(run.status), Cell(epochs),
                     value.cell([study.value(run)]), Cell(run.error or ""), folder_cell(run)])  # fmt: skip
    names = [Column("run", False), Column("status", False), Column("epochs"), Column(value.name),
             Column("error", False), Column("folder", False)]  # fmt: skip
    more = [Text(f"{len(runs) - MOST_ROWS} more are in results.csv.", "note")] if len(runs) > MOST_ROWS else []
    return [Section("Failed and unfinished", [Table(names, rows, heads=1), *more])] if rows else []


def all_runs(study: Study) -> Section:
    """Every run with its best values, as results.csv has them."""
    columns = [metric(study.objective), *map(wording.best, COLUMNS), wording.EPOCHS, wording.minutes(study.runs)]
    rows = [
        [*setting_cells(run.settings, study.varied), Cell(run.status), *(m.cell([m.get(run)]) for m in columns),
         folder_cell(run)]
        for run in study.runs
    ]  # fmt: skip
    names = [*setting_columns(study.varied), Column("status", False), *(Column(measure.name) for measure in columns),
             Column("folder", False)]  # fmt: skip
    table = Table(names, rows, heads=len(study.varied), sortable=len(rows) > 2)
    note = "The best of all epochs for train and val; for test, the epoch that was best by the objective."
    return Section("All runs", [table, Text(note, "note")], folded=len(rows) > MOST_OPEN_ROWS)
