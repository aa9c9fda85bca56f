"""The sections of a report, and the whole of it: the best configuration first, every run last."""

import shlex
import statistics
import warnings
from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote

from iolaus.checkpoint import COLUMNS, DONE
from iolaus.display import duration
from iolaus.report.document import Block, Cell, Column, Document, Facts, Gallery, Section, Table, Text
from iolaus.report.grid import comparison
from iolaus.report.groups import MISSING, Group, best_group, grouped, label, mean_std, measure, setting_columns, shown
from iolaus.report.plots import legend, pictures, styles
from iolaus.report.runs import FAILED, NOT_A_CHOICE, Run, Study, counted, inside, natural, read_yaml
from iolaus.report.search import Search, read_search
from iolaus.report.search_plots import search_pictures

MOST_ROWS = 20
MOST_OPEN_ROWS = 24  # the table of all runs is folded away beyond
TRAIN = ("python", "train.py")
ON_TEST = (
    "Selected on the test set: best epochs and this ranking were chosen by test accuracy (dataset.validation=test), "
    "which makes the test numbers too favourable."
)


def whole_document(study: Study, foot: str) -> Document:
    groups = grouped(study)
    sections = [leaderboard(study, groups), *comparison(study, groups), *curves(study, groups), *search_section(study),
                *not_finished(study), all_runs(study)]  # fmt: skip
    return Document(study.folder.resolve().name, head(study, groups), sections, foot)


def head(study: Study, groups: Sequence[Group]) -> list[Block]:
    """The best configuration, and what was done."""
    on_test = any(run.result.get("selected_on_test") for run in study.runs)
    best = best_group(study, groups)
    praised = [Text("No run has finished yet.", "lead")] if best is None else praise(study, groups, best)
    return [*([Text(ON_TEST, "warning")] if on_test else []), *praised, facts(study)]


def praise(study: Study, groups: Sequence[Group], best: Group) -> list[Text]:
    """The best configuration, its numbers, how far it is ahead, and the commands that repeat it."""
    several = len(best.counted) > 1
    numbers = [
        f"{m.cell(values).text}{' %' if m.percent else ''} {m.word}"
        for m in map(measure, dict.fromkeys((study.objective, "test/accuracy")))
        if (values := best.values(m.name))
    ]
    text = ", ".join(numbers) + (f" (mean ± standard deviation of {len(best.counted)} seeds)" if several else "")
    if times := [seconds for seconds in best.values("seconds") if seconds]:
        text += f", {duration(statistics.fmean(times))} of training{' each' if several else ''}"

    run = min(best.counted, key=lambda run: study.order(study.reached(run)))
    typed = {key: override for key, override in run.overrides.items() if key not in NOT_A_CHOICE}
    commands = [shlex.join([*TRAIN, *typed.values()])]
    seeds = sorted({r.settings["seed"] for r in best.counted if "seed" in r.settings}, key=natural)
    if len(seeds) > 1:
        others = [override for key, override in typed.items() if key != "seed"]
        commands.append(shlex.join([*TRAIN, "-m", *others, f"seed={','.join(seeds)}"]))
    return [
        *([Text(f"Best: {label(best.settings, study.keys)}", "lead")] if study.keys else []),
        Text(f"{text}. {ahead(study, groups)}".strip()),
        *(Text(command, "command") for command in commands),
    ]


def ahead(study: Study, groups: Sequence[Group]) -> str:
    """By how much the first is better than the second, and what the seeds say about that."""
    if len(groups) < 2 or best_group(study, groups[1:]) is None:
        return ""
    (first, scatter), (second, other) = (mean_std(group.values(study.objective)) for group in groups[:2])
    m = measure(study.objective)
    gap = m.written(abs(first - second)) + (" points" if m.percent else "")
    text = f"{gap} ahead of {label(groups[1].settings, study.keys)}"
    if scatter is None or other is None:
        return f"{text}; with one run each, how much seeds scatter is not known."
    return f"{text}; seeds scatter by {m.written(scatter)} and {m.written(other)}."


def facts(study: Study) -> Facts:
    """What was done, by how many runs, for how long, on what."""
    runs, results = study.runs, [run.result for run in study.runs]
    total = sum(run.numbers.get("seconds", 0.0) for run in runs)
    shared = set.intersection(*(set(run.overrides.values()) for run in runs)) if len(runs) > 1 else set()
    devices = [", ".join(str(r[key]) for key in ("device_name", "precision") if r.get(key)) for r in results]
    versions = [
        ", ".join(f"{k} {v}" for k, v in d.items()) for r in results if isinstance(d := r.get("versions"), dict)
    ]
    commits = {str(commit)[:9] for r in results if (commit := inside(r, "git", "commit"))}
    dirty = any(inside(r, "git", "dirty") for r in results)
    pairs = [
        *((key, values_of(sorted({r.settings.get(key, MISSING) for r in runs}, key=natural))) for key in study.varied),
        ("The same for all", " ".join(o for o in runs[0].overrides.values() if o in shared)),
        ("Runs", counted(Counter(run.status for run in runs))),
        ("Training", f"{duration(total)} in all" if total else ""),
        ("Objective", f"{study.objective} at the last epoch, the {'higher' if study.maximize else 'lower'} the better"),
        ("Data", "; ".join(dict.fromkeys(str(r["data"]) for r in results if r.get("data")))),
        ("Device", "; ".join(dict.fromkeys(filter(None, devices)))),
        ("Versions", "; ".join(dict.fromkeys(versions))),
        ("Code", ", ".join(sorted(commits)) + (", with uncommitted changes" if dirty else "")),
    ]  # fmt: skip
    return Facts([(name, value) for name, value in pairs if value])


def values_of(values: Sequence[str]) -> str:
    """A few values in full; many by their number and ends."""
    few = ", ".join(map(shown, values))
    return few if len(values) <= 8 else f"{len(values)} values from {shown(values[0])} to {shown(values[-1])}"


def leaderboard(study: Study, groups: Sequence[Group]) -> Section:
    """One row for each configuration, the best objective first; of the numbers those that some run has."""
    first, chosen = groups[:MOST_ROWS], styles(study, groups)
    names = (study.objective, "val/accuracy", "test/accuracy", "minutes", "train/accuracy", "train/loss", "test/loss",
             "epochs", "images_per_second", "peak_memory_mib")  # fmt: skip
    measures = [measure(name, study.runs) for name in dict.fromkeys(names)]
    ranks = [
        Cell(str(i + 1) if group.finished else "", order=i, style=chosen[i] if study.keys else None)
        for i, group in enumerate(first)
    ]
    states = [Counter(run.status for run in group.runs) for group in first]
    columns = [
        Column("", ranks, numeric=False),
        *setting_columns([group.settings for group in first], study.keys),
        *(m.column([group.counted for group in first])
          for m in measures if any(m.name in run.numbers for run in study.runs)),
        Column("n", [str(len(group.counted)) for group in first]),
        Column("status", [next(iter(s)) if len(s) == 1 else counted(s) for s in states], numeric=False),
    ]  # fmt: skip
    best = 0 if best_group(study, groups) else None
    note = f"Values at the last epoch; in the order of {study.objective}."
    if any(len(group.counted) > 1 for group in groups):
        note += (
            " Mean ± sample standard deviation over n runs that differ only in the seed; epochs, minutes and images/s: "
            "mean, memory: the largest."
        )
    if len(groups) > MOST_ROWS:
        note += f" {len(groups) - MOST_ROWS} more are below, under All runs."
    table = Table(columns, best=best, heads=1 + len(study.keys), sortable=True)
    return Section("Leaderboard", [table, Text(note, "note")])


def curves(study: Study, groups: Sequence[Group]) -> list[Section]:
    drawn = pictures(study, groups)
    if not drawn:
        return []
    blocks: list[Block] = [Gallery(drawn, legend(study, groups))]
    if any(len(group.finished) > 1 for group in groups):
        note = "Thick: mean over the seeds, with a band of one standard deviation. Thin: each run."
        blocks.append(Text(note, "note"))
    return [Section("Curves", blocks)]


def search_section(study: Study) -> list[Section]:
    """What Optuna has tried: trials by state, the best, pictures, and what is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks much of itself as experimental
        try:
            search = read_search(study.folder, study.objectives)
        except Exception as error:  # Optuna's, SQLAlchemy's, the driver's, a broken file's
            # without the message: it may hold the storage's URL, and that a password
            note = f"Optuna's study could not be read ({type(error).__name__})."
            return [Section("Search", [Text(note, "note")])]
        if search is None:
            return []
        drawn, notes = search_pictures(search)
    blocks: list[Block] = []
    if search.trials:
        blocks.append(Text(f"Optuna: {len(search.trials)} trials, {counted(search.states)}."))
    if search.best:
        blocks.append(trial_table(study, search))
    if drawn:
        blocks.append(Gallery(drawn))
    return [Section("Search", [*blocks, *(Text(note, "note") for note in notes)])]


def trial_table(study: Study, search: Search) -> Table:
    """The best trial, or those of the Pareto front, with their parameters."""
    trials = sorted(search.best, key=lambda trial: trial.values[0], reverse=search.maximize[0])[:MOST_ROWS]
    settings = [{key: str(value) for key, value in trial.params.items()} for trial in trials]
    links = [f"{t.number}/" if (study.folder / str(t.number)).is_dir() else None for t in trials]
    numbers = [Cell(str(t.number), order=t.number, link=link) for t, link in zip(trials, links, strict=True)]
    columns = [
        Column("best trial" if len(search.names) == 1 else "on the Pareto front", numbers, numeric=False),
        *(Column(m.head, [m.cell([trial.values[i]]) for trial in trials]) for i, m in enumerate(search.measures)),
        *setting_columns(settings, list(dict.fromkeys(key for chosen in settings for key in chosen))),
    ]
    return Table(columns, heads=1, sortable=True)


def not_finished(study: Study) -> list[Section]:
    """Failed runs with their error, and those that have no results yet."""
    runs = sorted((r for r in study.runs if r.status not in DONE), key=lambda run: run.status != FAILED)
    if not runs:
        return []
    first = runs[:MOST_ROWS]
    planned = [inside(read_yaml(run.folder / ".hydra" / "config.yaml"), "trainer", "epochs") for run in first]
    epochs = [f"{len(r.history)} of {of}" if of else str(len(r.history)) for r, of in zip(first, planned, strict=True)]
    columns = [
        Column("run", [label(run.settings, study.varied) for run in first], numeric=False),
        Column("status", [run.status for run in first], numeric=False),
        Column("epochs", epochs),
        measure(study.objective).column([run] for run in first),
        Column("error", [run.error or "" for run in first], numeric=False),
        folder_column(first),
    ]
    more = [Text(f"{len(runs) - MOST_ROWS} more are in results.csv.", "note")] if len(runs) > MOST_ROWS else []
    return [Section("Failed and unfinished", [Table(columns, heads=1), *more])]


def all_runs(study: Study) -> Section:
    """Every run with its best values, as results.csv has them."""
    measures = [measure(name, study.runs) for name in (study.objective, *COLUMNS, "epochs", "minutes")]
    columns = [
        *setting_columns([run.settings for run in study.runs], study.varied),
        Column("status", [run.status for run in study.runs], numeric=False),
        *(m.column([run] for run in study.runs) for m in measures),
        folder_column(study.runs),
    ]
    note = "The best of all epochs for train and val; for test, the epoch that was best by the objective."
    table = Table(columns, heads=len(study.varied), sortable=True)
    return Section("All runs", [table, Text(note, "note")], folded=len(study.runs) > MOST_OPEN_ROWS)


def folder_column(runs: Sequence[Run]) -> Column:
    def cell(name: str) -> Cell:
        link = quote(name, safe="/=,+", errors="replace") + "/"
        return Cell(name if len(name) <= 32 else f"…{name[-31:]}", order=name, whole=name, link=link)

    return Column("folder", [cell(run.name) for run in runs], numeric=False)
