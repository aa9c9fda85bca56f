"""An evaluation in the terminal: its figures, the classes that are missed most, and the files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from iolaus.files.layout import BEST, LAST
from iolaus.files.run_folder import RunFolder
from iolaus.show.numbers import MISSING, count_unread, format_metric
from iolaus.show.tables import clean_text, new_table, print_line, print_table

if TYPE_CHECKING:
    from iolaus.use.evaluation import Evaluation

MOST_CLASSES_LISTED = 10
WORDS_OF = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "macro F1",
    "loss": "loss",
    "ece": "calibration error (ECE)",
}
# a study's table and report rank by the last epoch
WHICH_EPOCH = {BEST: ", the best (--weights last: the last)", LAST: ", the last"}


def print_evaluation(
    evaluation: "Evaluation", about: Mapping[str, Any], files: Sequence[Path], console: Console | None = None
) -> None:
    """Print what the user asked for; the files stand last, one a line."""
    console = console or Console()
    epoch = f", epoch {int(about['epoch']) + 1}" if about["epoch"] is not None else ""
    which = WHICH_EPOCH.get(about["weights"], "")
    weights = about["weights"] + (f", within{epoch[1:]}" if about.get("within_epoch") else epoch + which)
    print_line(console, f"{about['split']}: {len(evaluation.places):,} images; {weights}; {about['precision']}")
    figures = new_table(console)
    figures.add_column("")
    figures.add_column("", justify="right")
    for name, words in WORDS_OF.items():
        if name in evaluation.figures:
            figures.add_row(words, format_metric(name, evaluation.figures[name]))
    figures.show_header = False
    print_table(console, figures)
    print_table(console, table_of_classes(evaluation, console))
    if evaluation.skipped:
        print_line(console, count_unread(evaluation.skipped))
    for path in files:
        print_line(console, str(RunFolder(path.absolute())))


def table_of_classes(evaluation: "Evaluation", console: Console) -> Table:
    """The classes with the lowest recall, each with the class that it is taken for most often."""
    table = new_table(console)
    confusion = evaluation.confusion.clone()
    confusion.fill_diagonal_(0)
    rows = [row for row in range(len(evaluation.table)) if evaluation.table[row]["count"]]
    rows.sort(key=lambda row: evaluation.table[row]["recall"])
    for name in ("class", "images", "recall", "precision", "taken for"):
        table.add_column(name, justify="right" if name in ("images", "recall", "precision") else "left")
    for row in rows[:MOST_CLASSES_LISTED]:
        values, most = evaluation.table[row], int(confusion[row].argmax())
        others = int(confusion[row, most])
        taken_for = f"{evaluation.classes[most]} ({others})" if others else ""
        numbers = [format_share(values["recall"]), format_share(values["precision"])]
        table.add_row(
            *(Text(clean_text(cell)) for cell in (values["class"], str(values["count"]), *numbers, taken_for))
        )
    if rows[MOST_CLASSES_LISTED:]:
        table.add_row(Text(f"and {len(rows) - MOST_CLASSES_LISTED} more"))
    return table


def format_share(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f} %"
