"""The table of a study in the terminal: at its end, and while it runs (`iolaus watch`).

It only reads the runs' folders, whichever launcher, sweeper or machine runs them.
"""

import contextlib
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iolaus.command import can_redraw
from iolaus.files.layout import FAILED, FINISHED
from iolaus.report.configurations import longest_minutes, merit_of
from iolaus.report.runs import MOST_ROWS, REPEATS, RUNNING, Run, Study, format_counts, read_study, short_names
from iolaus.report.summary import describe_edits
from iolaus.show.numbers import MISSING, format_metric, metric_of, shorten_number, time_metric
from iolaus.show.tables import clean_text, measure_table, new_table, print_line, print_table

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table

MOST_ERRORS = 5
LINES_AROUND = 10  # of a terminal, beside the rows: heading, head of the table, the prompt
EVERY_SECONDS = 2.0
BEST_COLUMNS = {  # over all epochs; for test, the epoch that is best by the objective (results.py)
    "max\ntrain\nacc": "best_train_accuracy",
    "best\ntest\nacc": "best_test_accuracy",
    "min\ntrain\nloss": "best_train_loss",
    "best\ntest\nloss": "best_test_loss",
}
# what a narrow terminal does without, in this order
LEFT_OUT_FIRST = ("best_train_loss", "best_test_loss", "epochs", "best_train_accuracy", "seconds", "minutes")


def rank_runs(study: Study) -> list[Run]:
    """The runs in the order of `merit_of`; those without an objective last, failed ones last of all."""
    return sorted(study.runs, key=lambda run: (run.status == FAILED, merit_of(study, run)))


def best_run(study: Study) -> Run | None:
    """The finished run with the best objective."""
    finished = (run for run in study.runs if run.status == FINISHED and math.isfinite(study.objective_value(run)))
    return min(finished, key=lambda run: merit_of(study, run), default=None)


def study_table(study: Study, runs: Sequence[Run], console: "Console", left_out: int = 0) -> "Table":
    """A table of some of a study's runs, the best of all of them marked with *.

    left_out: how many of its columns of numbers it does without, of LEFT_OUT_FIRST in this order.
    """
    from rich.text import Text

    table, best = new_table(console), best_run(study)
    in_search = all(run.name.isdigit() for run in study.runs)
    table.add_column("\n\ntrial" if in_search else "", no_wrap=True)
    for key, name in zip(study.varied, short_names(study.varied), strict=True):
        longest = max((len(format_setting(run, key)) for run in runs), default=0)
        table.add_column(f"\n\n{name}", overflow="fold", min_width=min(longest, 16))
    time = time_metric(longest_minutes(study.runs))
    columns = {last_head(objective): metric_of(objective) for objective in study.objectives}
    columns |= {head: metric_of(name) for head, name in BEST_COLUMNS.items()}
    columns |= {"\n\nepochs": metric_of("epochs"), f"\n\n{time.name}": time}
    without = LEFT_OUT_FIRST[:left_out]
    columns = {head: metric for head, metric in columns.items() if metric.name not in without}
    numbers = {
        head: [metric.format_with_unit(run.numbers.get(metric.name)) for run in runs]
        for head, metric in columns.items()
    }
    for head, cells in numbers.items():  # a number and its unit are not two words between which a line may break
        table.add_column(head, justify="right", no_wrap=True, min_width=max(map(len, cells), default=0))
    table.add_column("\n\nstatus", no_wrap=True)
    for row, run in enumerate(runs):
        values = [*(format_setting(run, key) for key in study.varied), *(cells[row] for cells in numbers.values())]
        mark = ("* " if run is best else "  " if in_search else "") + (run.name if in_search else "")
        style = "bold green" if run is best else "red" if run.status == FAILED else "cyan" * (run.status == RUNNING)
        # Text, not str, in which brackets would be markup
        table.add_row(*(Text(cell) for cell in (mark, *values, run.status)), style=style)
    return table


def fit_table(study: Study, runs: Sequence[Run], console: "Console") -> "Table":
    """The table with as many columns as the terminal has room for: a view in place can't be wider than it."""
    tables = (study_table(study, runs, console, left_out) for left_out in range(len(LEFT_OUT_FIRST) + 1))
    fitting = (table for table in tables if measure_table(console, table).minimum <= console.width)
    return next(fitting, study_table(study, runs, console, len(LEFT_OUT_FIRST)))


def last_head(objective: str) -> str:
    """The three lines at the head of an objective's column; what has a split is the last epoch's."""
    split, _, name = objective.replace("accuracy", "acc").rpartition("/")
    return f"last\n{split}\n{name}" if split else f"\n\n{name}"


def describe_columns(study: Study) -> str:
    """Which epoch the columns of a study's table are of, in a line."""
    best = f"best: that of the best {study.objective}, as iolaus evaluate takes it"
    return f"last: the last epoch, by which runs are ranked; {best}; max, min: over all epochs"


def print_study(study: Study, console: "Console | None" = None) -> None:
    """Print the closing table of a sweep, the best run first, then the errors and the best run's folder."""
    from rich.console import Console

    console = console or Console()
    runs = rank_runs(study)
    print_table(console, study_table(study, runs[:MOST_ROWS], console))
    if any(run.history for run in study.runs):
        print_line(console, describe_columns(study))
    if len(runs) > MOST_ROWS:
        print_line(console, f"and {len(runs) - MOST_ROWS} more: {format_counts(Counter(run.status for run in runs))}")
    if edited := describe_edits(study):
        print_line(console, edited)
    failed = [run for run in runs if run.error]  # a message within the table would squeeze all its columns
    for run in failed[:MOST_ERRORS]:
        print_line(console, f"{format_settings(study, run)}: {(run.error or '').splitlines()[0]}")
    if len(failed) > MOST_ERRORS:
        print_line(console, f"and {len(failed) - MOST_ERRORS} more failed")
    if (best := best_run(study)) is not None:
        is_repeated = any(key in study.varied for key in REPEATS)  # the report ranks their means
        print_line(console, f"{'Best single run' if is_repeated else 'Best'}: {best.folder}")


def format_settings(study: Study, run: Run) -> str:
    """The settings that tell a run from the others, as they were typed."""
    return " ".join(f"{key}={format_setting(run, key)}" for key in study.varied) or run.name


def format_setting(run: Run, key: str) -> str:
    return shorten_number(run.settings.get(key, MISSING))


def live_view(study: Study, total: int | None, console: "Console") -> "Group":
    """The view of a running study: the number of runs by status, the best, the running ones, then the best others."""
    from rich.console import Group
    from rich.text import Text

    states, best = Counter(run.status for run in study.runs), best_run(study)
    line = f"{clean_text(study.folder.name)}: {format_counts(states)}{f' of {total}' if total else ''}"
    if best is not None:
        value = format_metric(study.objective, best.numbers[study.objective])
        line += f"; best {study.objective} {value}: {format_settings(study, best)}"
    running = [run for run in study.runs if run.status == RUNNING]
    others = [run for run in rank_runs(study) if run.status != RUNNING]
    room = max(3, console.height - LINES_AROUND - len(running) - len(line) // console.width)
    parts: list[RenderableType] = [
        Text(line, style="bold"),
        fit_table(study, [*running, *others[:room]], console),
    ]
    return Group(*parts, *([Text(f"and {len(others) - room} more")] if len(others) > room else []))


@contextlib.contextmanager
def show_live(
    folder: Path, total: int | None = None, console: "Console | None" = None
) -> Iterator[Callable[[], Study | None]]:
    """A function that redraws the study in the terminal, to be called often; without a terminal it does nothing.

    It returns the study as it was read last, None before there is one.
    """
    if not (can_redraw(sys.stdout) if console is None else console.is_terminal):
        yield lambda: None
        return
    from rich.console import Console
    from rich.live import Live

    console = console or Console()
    known: dict[Path, Run] = {}
    due, study = 0.0, None
    with Live(console=console, auto_refresh=False, transient=True) as display:

        def look() -> Study | None:
            nonlocal due, study
            if (now := time.monotonic()) >= due:
                with contextlib.suppress(ValueError):  # no run has begun
                    study = read_study(folder, known)
                    display.update(live_view(study, total, console), refresh=True)
                due = time.monotonic() + max(EVERY_SECONDS, 10 * (time.monotonic() - now))
            return study

        yield look
