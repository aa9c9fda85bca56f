"""The closing table of a run, and the table of a sweep."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.display import duration, number, percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MISSING = "-"


def result_table(result: dict[str, Any], folder: Path, console: "Console | None" = None) -> None:
    """Prints the closing table of a run: accuracy and loss of each split, at the last and the best epoch.

    result: the content of the run's result file; a split without values has no row. Beneath come time,
    speed, device and parameters, and on a line of its own, whole, the run's folder.
    """
    from rich.console import Console

    console = console or Console()
    table = _table(console)
    last, best = result["metrics"]["last"], result["metrics"]["best"] or {}
    table.add_column("")
    for name, metrics in (("last", last), ("best", best)):
        epoch = f" (epoch {metrics['epoch'] + 1})" if "epoch" in metrics else ""
        table.add_column(f"{name}{epoch}\naccuracy", justify="right")
        table.add_column("\nloss", justify="right")
    for row, prefix in (("train", "train/"), ("val", "val/"), ("test", "test/"), ("test, TTA", "test/tta_")):
        if f"{prefix}loss" in last or f"{prefix}loss" in best:
            cells = []
            for metrics in (last, best):
                cells += [percent(metrics.get(f"{prefix}accuracy")), number(metrics.get(f"{prefix}loss"))]
            table.add_row(row, *cells)
    _print_table(console, table)
    facts = [
        duration(result["seconds"]),
        f"{result['images_per_second']:,.0f} images/s" if result["images_per_second"] else "",
        f"{result['device']}, {result['precision']}",
        f"{result['parameters']:,} parameters",
    ]
    _print_line(console, "   ".join(fact for fact in facts if fact))
    if result["stopped"]:
        _print_line(console, f"Stopped by {result['stopped']}")
    if result.get("skipped_images"):
        _print_line(console, f"{result['skipped_images']} images could not be read and were left out; see run.log")
    if result["selected_on_test"]:
        _print_line(console, "The best epoch was chosen on the test set: its test accuracy is too favourable")
    _print_line(console, str(folder))


def sweep_table(rows: list[dict[str, Any]], varied: list[str], console: "Console | None" = None) -> None:
    """Prints the table of a multirun: a row a run, the best validation accuracy first and marked with *.

    rows: a run's overrides, status and folder, and of its results what there is.
    varied: the keys that differ between the runs, a column each. A failed run shows the first line of its
    error, beneath the table, instead of numbers. The last line is the best run's folder.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    table = _table(console)
    table.add_column("")
    for key, name in zip(varied, short_names(varied), strict=True):
        longest = max((len(row["overrides"].get(key, MISSING)) for row in rows), default=0)
        table.add_column(name, overflow="fold", min_width=min(longest, 16))
    for name in ("val\nacc", "train\nacc", "test\nacc", "train\nloss", "test\nloss", "\nminutes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    ordered = sorted(rows, key=_by_accuracy, reverse=True)
    best = next((row for row in ordered if _by_accuracy(row) > -math.inf), None)
    for row in ordered:
        values = [row["overrides"].get(key, MISSING) for key in varied]
        accuracies = [percent(row.get(f"best_{split}_accuracy")) for split in ("val", "train", "test")]
        losses = [number(row.get(f"best_{split}_loss")) for split in ("train", "test")]
        minutes = number(row["seconds"] / 60, ".1f") if row.get("seconds") is not None else MISSING
        numbers = [""] * 6 if row.get("error") else [*accuracies, *losses, minutes]
        # Text, not str: brackets in an override are no markup
        cells = [Text(cell) for cell in ("*" if row is best else "", *values, *numbers, row["status"])]
        table.add_row(*cells, style="bold green" if row is best else "red" if row.get("error") else None)
    _print_table(console, table)
    # in a column of the table a message would squeeze all others
    for row in ordered:
        if row.get("error"):
            which = " ".join(f"{key}={row['overrides'].get(key, MISSING)}" for key in varied)
            _print_line(console, f"{which}: {row['error'].strip().splitlines()[0]}")
    if best is not None:
        _print_line(console, str(best["folder"]))


def short_names(keys: Sequence[str]) -> list[str]:
    """`optimizer.lr` becomes `lr` wherever no other key ends in the same word."""
    leaves = [key.rsplit(".", 1)[-1] for key in keys]
    return [leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)]


def _by_accuracy(row: dict[str, Any]) -> float:
    accuracy = row.get("best_val_accuracy")
    return -math.inf if row.get("error") or accuracy is None or math.isnan(accuracy) else accuracy


def _table(console: "Console") -> "Table":
    from rich import box
    from rich.table import Table

    # in a pipe or a log the columns alone are the easiest to read and to cut
    if not console.is_terminal:
        return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    return Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)


def _print_table(console: "Console", table: "Table") -> None:
    from rich.measure import Measurement

    natural = Measurement.get(console, console.options.update(width=10_000), table)
    # a file has no width, and a narrow terminal may break lines, but no column is ever cut away
    room = max(console.width, natural.minimum) if console.is_terminal else natural.maximum
    table.width = min(room, natural.maximum)
    console.print(table, soft_wrap=True)


def _print_line(console: "Console", line: str) -> None:
    """As it is: not wrapped, not cut, so that a path can be copied."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)
