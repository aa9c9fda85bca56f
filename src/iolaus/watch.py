"""The table of a study: at its end, and while it runs, by `python -m iolaus.watch outputs/STUDY` in any terminal.

It only reads the runs' folders, so it shows the runs of any launcher, of several sweepers and of other machines.
"""

import argparse
import contextlib
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.display import MISSING, number, percent
from iolaus.report.groups import shown
from iolaus.report.runs import FAILED, FINISHED, RUNNING, Run, Study, counted, read_study, short_names
from iolaus.tables import new_table, print_line, print_table

if TYPE_CHECKING:
    from rich.console import Console

MOST_ROWS = 20  # of a closing table; all are in results.csv
MOST_ERRORS = 5
LINES_AROUND = 10  # of a terminal, beside the rows: heading, head of the table, the prompt
EVERY_SECONDS = 2.0
BEST = {  # over all epochs; for test, the epoch that is best by the objective (results.py)
    "best\ntrain\nacc": "best_train_accuracy", "\ntest\nacc": "best_test_accuracy",
    "\ntrain\nloss": "best_train_loss", "\ntest\nloss": "best_test_loss",
}  # fmt: skip


def ranked(study: Study) -> list[Run]:
    """The best objective at the last epoch first; those without one last, failed ones last of all."""
    return sorted(study.runs, key=lambda run: (run.status == FAILED, study.order(study.reached(run))))


def best_run(study: Study) -> Run | None:
    """The finished run with the best objective."""
    finished = (run for run in study.runs if run.status == FINISHED and math.isfinite(study.reached(run)))
    return min(finished, key=lambda run: study.order(study.reached(run)), default=None)


def written(name: str, value: float | None) -> str:
    """A number by its name: accuracies in percent."""
    if name.endswith("accuracy"):
        return percent(value)
    if name in ("seconds", "minutes"):
        return number(value, ".2f" if value is not None and value < 1 else ".1f")
    return number(value, ".4f" if name.endswith("loss") else ".6g")


def study_table(study: Study, runs: Sequence[Run], console: "Console") -> Any:
    """A rich table of some of a study's runs, the best of all of them marked with *."""
    from rich.text import Text

    table, best = new_table(console), best_run(study)
    in_search = all(run.name.isdigit() for run in study.runs)
    table.add_column("\n\ntrial" if in_search else "", no_wrap=True)
    for key, name in zip(study.varied, short_names(study.varied), strict=True):
        longest = max((len(setting(run, key)) for run in runs), default=0)
        table.add_column(f"\n\n{name}", overflow="fold", min_width=min(longest, 16))
    heads = {f"\n{o.replace('/', chr(10)).replace('accuracy', 'acc')}": o for o in study.objectives} | BEST
    for head in (*heads, "\n\nepochs", "\n\nminutes"):
        table.add_column(head if head.count("\n") == 2 else f"\n{head}", justify="right", no_wrap=True)
    table.add_column("\n\nstatus", no_wrap=True)
    for run in runs:
        values = [setting(run, key) for key in study.varied]
        numbers = [written(name, run.numbers.get(name)) for name in (*heads.values(), "epochs", "minutes")]
        mark = ("* " if run is best else "  " if in_search else "") + (run.name if in_search else "")
        style = "bold green" if run is best else "red" if run.status == FAILED else "cyan" * (run.status == RUNNING)
        # Text, not str: brackets in an override are no markup
        table.add_row(*(Text(cell) for cell in (mark, *values, *numbers, run.status)), style=style)
    return table


def print_study(study: Study, console: "Console | None" = None) -> None:
    """The closing table of a sweep, the best first, and beneath it what went wrong and the best run's folder."""
    from rich.console import Console

    console = console or Console()
    runs = ranked(study)
    print_table(console, study_table(study, runs[:MOST_ROWS], console))
    if len(runs) > MOST_ROWS:
        print_line(console, f"and {len(runs) - MOST_ROWS} more: {counted(Counter(run.status for run in runs))}")
    failed = [run for run in runs if run.error]  # a message within the table would squeeze all its columns
    for run in failed[:MOST_ERRORS]:
        print_line(console, f"{chosen(study, run)}: {(run.error or '').strip().splitlines()[0]}")
    if len(failed) > MOST_ERRORS:
        print_line(console, f"and {len(failed) - MOST_ERRORS} more failed")
    if (best := best_run(study)) is not None:
        print_line(console, str(best.folder))


def chosen(study: Study, run: Run) -> str:
    """What tells a run from the others, as it was typed."""
    return " ".join(f"{key}={setting(run, key)}" for key in study.varied) or run.name


def setting(run: Run, key: str) -> str:
    """A value that was chosen; a number that a sampler has drawn is rounded."""
    return shown(run.settings.get(key, MISSING))


def view(study: Study, total: int | None, console: "Console") -> Any:
    """What a terminal shows of a study that runs: how far it is, its best, the runs at work, then the best ones."""
    from rich.console import Group
    from rich.text import Text

    states, best = Counter(run.status for run in study.runs), best_run(study)
    line = f"{study.folder.name}: {counted(states)}{f' of {total}' if total else ''}"
    if best is not None:
        line += f"; best {study.objective} {written(study.objective, best.numbers[study.objective])}: "
        line += chosen(study, best)
    at_work = [run for run in study.runs if run.status == RUNNING]
    others = [run for run in ranked(study) if run.status != RUNNING]
    room = max(3, console.height - LINES_AROUND - len(at_work))
    parts = [
        Text(line, style="bold", no_wrap=True, overflow="ellipsis"),
        study_table(study, [*at_work, *others[:room]], console),
    ]
    return Group(*parts, *([Text(f"and {len(others) - room} more")] if len(others) > room else []))


@contextlib.contextmanager
def live(folder: Path, total: int | None = None, console: "Console | None" = None) -> Iterator[Callable[[], None]]:
    """A function to be called again and again, which shows the study in the terminal, in place; elsewhere nothing."""
    if not (sys.stdout.isatty() if console is None else console.is_terminal):
        yield lambda: None
        return
    from rich.console import Console
    from rich.live import Live

    console = console or Console()
    known: dict[Path, Run] = {}
    due = 0.0
    with Live(console=console, auto_refresh=False, transient=True) as shown:

        def look() -> None:
            nonlocal due
            if (now := time.monotonic()) >= due:
                with contextlib.suppress(ValueError):  # no run has begun
                    shown.update(view(read_study(folder, known), total, console), refresh=True)
                due = time.monotonic() + max(EVERY_SECONDS, 10 * (time.monotonic() - now))

        yield look


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m iolaus.watch", description="The table of a study while it runs.")
    parser.add_argument("folder", type=Path, help="outputs/STUDY")
    folder = parser.parse_args().folder
    try:
        study = read_study(folder)
    except ValueError as error:
        print(f"iolaus: {error}", file=sys.stderr)
        return 2
    if not sys.stdout.isatty():
        print_study(study)
        return 0
    with contextlib.suppress(KeyboardInterrupt), live(folder) as look:
        while True:
            look()
            time.sleep(EVERY_SECONDS / 4)
    print_study(read_study(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
