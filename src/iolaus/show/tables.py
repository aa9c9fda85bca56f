"""The closing table of a run, and how tables are printed in a terminal, a pipe or a log."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.command import in_notebook
from iolaus.show.numbers import PLAIN_NUMBER, count_unread, format_duration, format_metric

if TYPE_CHECKING:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    from iolaus.files.run_folder import RunFolder

UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # escape codes of terminals, lone surrogates


def result_table(result: dict[str, Any], folder: "Path | RunFolder", console: "Console | None" = None) -> None:
    """Print the closing table of a run: accuracy and loss of each split, at the last and the best epoch.

    result: the content of results.json; a split without values has no row. Below the table stand what else there is to
    say of test, then time, speed, device and parameters, and the run's folder on a line of its own.
    """
    from rich.console import Console

    console = console or Console()
    table = new_table(console)
    last, best = result["metrics"]["last"], result["metrics"]["best"] or {}
    table.add_column("")
    for name, metrics in (("last", last), ("best", best)):
        epoch = f" (epoch {metrics['epoch'] + 1})" if "epoch" in metrics else ""
        table.add_column(f"{name}{epoch}\naccuracy", justify="right")
        table.add_column("\nloss", justify="right")
    for row, prefix in (("train", "train/"), ("val", "val/"), ("test", "test/"), ("test, TTA", "test/tta_")):
        if f"{prefix}loss" in last or f"{prefix}loss" in best:
            names = [f"{prefix}accuracy", f"{prefix}loss"]
            table.add_row(row, *(format_metric(name, metrics.get(name)) for metrics in (last, best) for name in names))
    print_table(console, table)
    if further := describe_further(best or last):
        print_line(console, f"test, {'best' if best else 'last'}: {further}")
    facts = [
        format_duration(result["seconds"]),
        f"{speed:,.{0 if speed >= 10 else 2}f} images/s" if (speed := result["images_per_second"]) else "",
        f"{result['device']}, {result['precision']}",
        f"{result['parameters']:,} parameters",
    ]
    print_line(console, "   ".join(fact for fact in facts if fact))
    if result["stopped"]:
        print_line(console, f"Stopped by {result['stopped']}")
    if result.get("skipped_images"):
        print_line(console, f"{count_unread(result['skipped_images'])}; see run.log")
    if result["selected_on_test"]:
        print_line(console, "The best epoch was chosen on the test set: its test accuracy is too favourable")
    print_line(console, str(folder))


def describe_further(metrics: dict[str, float]) -> str:
    """Figures of test beside accuracy and loss, those that were measured: top-5 is of more than five classes."""
    words = {"top5_accuracy": "top-5", "balanced_accuracy": "balanced accuracy", "f1": "macro F1"}
    found = {name: metrics[f"test/{name}"] for name in words if f"test/{name}" in metrics}
    return ", ".join(f"{words[name]} {format_metric(name, value)}" for name, value in found.items())


def new_table(console: "Console") -> "Table":
    """An empty table in the style of the console: ruled in a terminal, plain columns elsewhere."""
    from rich import box
    from rich.table import Table

    # in a pipe or a log, columns without rules are the easiest to read and to cut
    if not is_screen(console):
        return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    return Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)


def print_table(console: "Console", table: "Table") -> None:
    """Print all columns of a table, whatever the width of the console."""
    natural = measure_table(console, table)
    # a file has no width, a notebook scrolls; a narrow terminal may break lines, but no column is cut off
    room = max(console.width, natural.minimum) if is_screen(console) else natural.maximum
    table.width = min(room, natural.maximum)
    console.print(table, soft_wrap=True)


def measure_table(console: "Console", table: "Table") -> "Measurement":
    """The widths that a table can have: the least, with lines broken, and that of all its lines."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(width=10_000), table)


def is_screen(console: "Console") -> bool:
    """Whether lines have the width of a terminal's window."""
    return console.is_terminal and not in_notebook()


def print_line(console: "Console", line: str) -> None:
    """Print a line neither wrapped nor cut, so that a path can be copied."""
    console.print(clean_text(line), soft_wrap=True, markup=False, highlight=False)


def safe_cell(text: str) -> str:
    """A text as a cell of CSV that no spreadsheet takes for a formula: an apostrophe before what would begin one."""
    is_formula = text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    return f"'{text}" if is_formula and not PLAIN_NUMBER.fullmatch(text) else text


def clean_text(text: str) -> str:
    """A text from a file or a file name that can be printed and encoded: what could control a terminal becomes �."""
    return UNPRINTABLE.sub("\ufffd", text)
