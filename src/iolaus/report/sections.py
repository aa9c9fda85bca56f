"""The sections of a report, and the whole document: the best configuration first, every run last."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import quote

from iolaus.files.layout import DONE, FAILED, RESULT_COLUMNS
from iolaus.files.run_folder import RunFolder
from iolaus.report.comparison import comparison_sections
from iolaus.report.configurations import (
    Configuration,
    best_configuration,
    group_runs,
    metric_cell,
    metric_column,
    name_settings,
    setting_columns,
)
from iolaus.report.document import Block, Cell, Column, Document, Gallery, Section, Table, Text, anchor_of
from iolaus.report.evaluation import evaluation_section
from iolaus.report.groups import split_study
from iolaus.report.hardware_plots import hardware_section
from iolaus.report.leaderboard import fold_columns, leaderboard_section, run_numbers
from iolaus.report.parsing import MOST_EPOCHS, get_nested, read_yaml
from iolaus.report.plots import draw_pictures, legend_entries
from iolaus.report.runs import MOST_ROWS, Run, Study, format_counts
from iolaus.report.search import Search, read_search
from iolaus.report.search_plots import draw_search
from iolaus.report.summary import head_blocks
from iolaus.show.numbers import MISSING, metric_of

MOST_OPEN_ROWS = 24  # beyond, the table of all runs is folded away


def make_document(study: Study, foot: str) -> Document:
    """The report of a folder's runs: of one comparable group, or an overview and each group by itself."""
    groups, title = split_study(study), study.folder.resolve().name
    if len(groups) == 1:
        ranking = group_runs(groups[0])
        sections = group_sections(groups[0], ranking, search_section(study))
        return Document(title, head_blocks(groups[0], ranking), sections, foot)
    rankings = [group_runs(group) for group in groups]
    sections = []
    for group, ranking in zip(groups, rankings, strict=True):
        sections.append(Section(group.name, head_blocks(group, ranking)))
        sections += [nest(section, group) for section in group_sections(group, ranking, [])]
    return Document(title, overview_blocks(study, groups, rankings), [*sections, *search_section(study)], foot)


def group_sections(study: Study, ranking: Sequence[Configuration], search: list[Section]) -> list[Section]:
    """The sections of runs that can be compared."""
    compared = [leaderboard_section(study, ranking), *comparison_sections(study, ranking)]
    explained = [*curves_section(study, ranking), *evaluation_section(study), *search]
    rest = [*hardware_section(study, ranking), *unfinished_section(study), all_runs_section(study)]
    return [*compared, *explained, *rest]


def nest(section: Section, group: Study) -> Section:
    """A section of one of several groups: one level down, its pictures in files of their own."""
    prefix, blocks = anchor_of(group.name), list[Block]()
    for block in section.blocks:
        if isinstance(block, Gallery):
            pictures = [replace(picture, name=f"{prefix}_{picture.name}") for picture in block.pictures]
            block = replace(block, pictures=pictures)
        blocks.append(block)
    return replace(section, blocks=blocks, level=3, within=group.name)


def overview_blocks(study: Study, groups: Sequence[Study], rankings: Sequence[Sequence[Configuration]]) -> list[Block]:
    """The groups with the best configuration of each."""
    best = [best_configuration(group, ranking) for group, ranking in zip(groups, rankings, strict=True)]
    pairs = list(zip(groups, best, strict=True))

    def number(name: Callable[[Study], str]) -> list[Cell]:
        values = [(metric_of(name(group)), place.values(name(group)) if place else []) for group, place in pairs]
        return [Cell(f"{metric_cell(m, v).text}{' %' if m.percent and v else ''}") for m, v in values]

    columns = [
        Column("data", [Cell(group.name, link=f"#{anchor_of(group.name)}") for group in groups], numeric=False),
        Column("runs", [str(len(group.runs)) for group in groups]),
        Column("configurations", [str(len(ranking)) for ranking in rankings]),
        Column("best", [name_settings(p.settings, g.keys) if p else MISSING for g, p in pairs], numeric=False),
        Column("objective", [group.objective for group in groups], numeric=False),
        Column("value", number(lambda group: group.objective)),
        Column("test acc", number(lambda _: "test/accuracy")),
    ]
    counts = format_counts(Counter(run.status for run in study.runs))
    note = f"{counts}. Runs are compared where data, held-out images and objective are the same."
    return [Table(columns, heads=1), Text(note, "note")]


def curves_section(study: Study, ranking: Sequence[Configuration]) -> list[Section]:
    pictures = draw_pictures(study, ranking)
    if not pictures:
        return []
    blocks: list[Block] = [Gallery(pictures, legend_entries(study, ranking))]
    if any(len(place.finished_runs) > 1 for place in ranking):
        thick = "Thick: mean over the runs of a configuration, with a band of one standard deviation"
        blocks.append(Text(f"{thick}, no wider than they are. Thin: each run.", "note"))
    return [Section("Curves", blocks)]


def search_section(study: Study) -> list[Section]:
    """Optuna's trials by state, the best ones, pictures, and what is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna marks much of itself as experimental
            search = read_search(study.folder, study.objectives, study.storage)
            if search is None:
                return []
            pictures, notes = draw_search(search)
            table = [trial_table(study, search)] if search.best else []
    except Exception as error:  # Optuna's, SQLAlchemy's, the driver's, a broken file's
        hint = "for one on a server: iolaus report --storage URL"
        # without the message, which may hold the storage's URL and thus a password
        return [
            Section("Search", [Text(f"Optuna's study could not be read ({type(error).__name__}); {hint}.", "note")])
        ]
    count = [Text(f"Optuna: {len(search.trials)} trials, {format_counts(search.states)}.")] if search.trials else []
    gallery = [Gallery(pictures)] if pictures else []
    return [Section("Search", [*count, *table, *gallery, *(Text(note, "note") for note in notes)])]


def trial_table(study: Study, search: Search) -> Table:
    """The best trial, or those of the Pareto front, with their parameters."""
    trials = sorted(search.best, key=lambda trial: trial.values[0], reverse=search.maximize[0])[:MOST_ROWS]
    settings = [{key: str(value) for key, value in trial.params.items()} for trial in trials]
    links = [f"{t.number}/" if (study.folder / str(t.number)).is_dir() else None for t in trials]
    numbers = [Cell(str(t.number), order=t.number, link=link) for t, link in zip(trials, links, strict=True)]
    columns = [
        Column("best trial" if len(search.names) == 1 else "on the Pareto front", numbers, numeric=False),
        *(Column(m.head, [metric_cell(m, [t.values[i]]) for t in trials]) for i, m in enumerate(search.metrics)),
        *setting_columns(settings, list(dict.fromkeys(key for chosen in settings for key in chosen))),
    ]
    return Table(columns, heads=1, sortable=True)


def unfinished_section(study: Study) -> list[Section]:
    """Failed runs with their error, then runs without results."""
    runs = sorted((r for r in study.runs if r.status not in DONE), key=lambda run: run.status != FAILED)
    if not runs:
        return []
    first = runs[:MOST_ROWS]
    columns = [
        Column("run", [name_settings(run.settings, study.varied) for run in first], numeric=False),
        Column("status", [run.status for run in first], numeric=False),
        Column("epochs", [count_epochs(run) for run in first]),
        metric_column(metric_of(study.objective), ([run] for run in first)),
        Column("error", [run.error or "" for run in first], numeric=False),
        folder_column(first),
    ]
    more = [Text(f"{len(runs) - MOST_ROWS} more are in results.csv.", "note")] if len(runs) > MOST_ROWS else []
    return [Section("Failed and unfinished", [Table(columns, heads=1), *more])]


def count_epochs(run: Run) -> str:
    """`3 of 20`; without the number of planned epochs where the configuration can't be read."""
    planned = get_nested(read_yaml(RunFolder(run.folder).config_file), "trainer", "epochs")
    is_count = isinstance(planned, int) and 0 < planned < MOST_EPOCHS
    return f"{len(run.history)} of {planned}" if is_count else str(len(run.history))


def all_runs_section(study: Study) -> Section:
    """Every run with its best values, as results.csv has them."""
    objective, *numbers = run_numbers(study, study.runs, (study.objective, *RESULT_COLUMNS))
    objective = replace(objective, name=f"last {objective.name}") if "/" in study.objective else objective
    columns, same = fold_columns([Column("status", [run.status for run in study.runs], numeric=False), *numbers])
    columns = [
        *setting_columns([run.settings for run in study.runs], study.varied),
        objective,
        *columns,
        folder_column(study.runs),
    ]
    note = "Last: at the last epoch. Max and min: of all epochs. Best: at the epoch that is best by the objective."
    if same:
        note += f" The same in all rows: {', '.join(same)}."
    table = Table(columns, heads=len(study.varied), sortable=True)
    return Section("All runs", [table, Text(note, "note")], folded=len(study.runs) > MOST_OPEN_ROWS)


def folder_column(runs: Sequence[Run]) -> Column:
    def cell(name: str) -> Cell:
        link = quote(name, safe="/=,+", errors="replace") + "/"
        return Cell(name if len(name) <= 32 else f"…{name[-31:]}", order=name, whole=name, link=link)

    return Column("folder", [cell(run.name) for run in runs], numeric=False)
