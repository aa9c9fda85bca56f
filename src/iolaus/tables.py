"""The closing table of a run, and how tables are printed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.display import duration, number, percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def result_table(result: dict[str, Any], folder: Path, console: "Console | None" = None) -> None:
    """Prints the closing table of a run: accuracy and loss of each split, at the last and the best epoch.

    result: the content of the run's result file; a split without values has no row. Beneath come time,
    speed, device and parameters, and on a line of its own, whole, the run's folder.
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
            cells = []
            for metrics in (last, best):
                cells += [percent(metrics.get(f"{prefix}accuracy")), number(metrics.get(f"{prefix}loss"))]
            table.add_row(row, *cells)
    print_table(console, table)
    facts = [
        duration(result["seconds"]),
        f"{result['images_per_second']:,.0f} images/s" if result["images_per_second"] else "",
        f"{result['device']}, {result['precision']}",
        f"{result['parameters']:,} parameters",
    ]
    print_line(console, "   ".join(fact for fact in facts if fact))
    if result["stopped"]:
        print_line(console, f"Stopped by {result['stopped']}")
    if result.get("skipped_images"):
        print_line(console, f"{result['skipped_images']} images could not be read and were left out; see run.log")
    if result["selected_on_test"]:
        print_line(console, "The best epoch was chosen on the test set: its test accuracy is too favourable")
    print_line(console, str(folder))


def new_table(console: "Console") -> "Table":
    from rich import box
    from rich.table import Table

    # in a pipe or a log the columns alone are the easiest to read and to cut
    if not console.is_terminal:
        return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    return Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)


def print_table(console: "Console", table: "Table") -> None:
    from rich.measure import Measurement

    natural = Measurement.get(console, console.options.update(width=10_000), table)
    # a file has no width, and a narrow terminal may break lines, but no column is ever cut away
    room = max(console.width, natural.minimum) if console.is_terminal else natural.maximum
    table.width = min(room, natural.maximum)
    console.print(table, soft_wrap=True)


def print_line(console: "Console", line: str) -> None:
    """As it is: not wrapped, not cut, so that a path can be copied."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)
