"""The report of a study: `iolaus report FOLDER`, at any time, also while its runs go on.

`runs` reads the folder, with `parsing`; `configurations` and `comparison` compare, `search` asks Optuna, `plots` and
`search_plots` draw; `sections` makes a `document` of it, which `rendering` writes as HTML and Markdown. `terminal`
prints a study's table. The report imports neither torch nor Hydra.
"""

import csv
import io
import time
from dataclasses import replace
from operator import methodcaller
from pathlib import Path

from iolaus.files.atomic import write_atomically
from iolaus.files.layout import RESULT_COLUMNS
from iolaus.report.runs import Study, read_study
from iolaus.show.numbers import PLAIN_NUMBER

CSV, MARKDOWN, HTML, PLOTS = "results.csv", "report.md", "report.html", "plots"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "|", "%")  # how a formula begins in one spreadsheet or another


def write_report(folder: Path, storage: str | None = None) -> Path:
    """Write the report of a folder with runs below it; returns the HTML's path.

    storage: the URL of the server that holds a search's study, where one does.

    Raises ValueError, one line, where there is no folder or no run.
    """
    return report_study(replace(read_study(Path(folder)), storage=storage))


def report_study(study: Study) -> Path:
    """Write results.csv, report.md, report.html and plots/ into a study's folder; returns the HTML's path."""
    from iolaus.report.rendering import to_html, to_markdown
    from iolaus.report.sections import make_document

    document = make_document(study, foot=f"As of {time.strftime('%Y-%m-%d %H:%M')}. In full: {CSV}.")
    (study.folder / PLOTS).mkdir(exist_ok=True)
    files = {f"{PLOTS}/{picture.name}.png": picture.png for picture in document.pictures}
    texts = {CSV: to_csv(study), MARKDOWN: to_markdown(document), HTML: to_html(document)}
    files |= {name: text.encode(errors="replace") for name, text in texts.items()}  # a folder's name may be no text
    for name, content in files.items():  # the page last, when the files that it names exist
        write_atomically(study.folder / name, methodcaller("write", content))
    return study.folder / HTML


def to_csv(study: Study) -> str:
    """One row for each run, with plain numbers: accuracies are fractions. A missing value is empty."""
    columns = {"last_val_accuracy": "val/accuracy", "last_test_accuracy": "test/accuracy", "objective": study.objective}
    totals = ("seconds", "minutes", "images_per_second", "peak_memory_mib")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [*study.varied, "status", *RESULT_COLUMNS, *columns, "epochs", *totals, "error", "folder"]
    writer.writerow(map(defuse_formula, heads))
    for run in study.runs:
        settings = [run.settings.get(key) for key in study.varied]
        metrics = [run.numbers.get(name) for name in (*RESULT_COLUMNS, *columns.values())]
        epochs = int(run.numbers["epochs"])
        rows = [*settings, run.status, *metrics, epochs, *map(run.numbers.get, totals), run.error, run.name]
        writer.writerow(map(defuse_formula, rows))
    return text.getvalue()


def defuse_formula(cell: object) -> object:
    """A cell of a CSV file; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    is_formula = isinstance(cell, str) and cell.startswith(FORMULA) and not PLAIN_NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell
