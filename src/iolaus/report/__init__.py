"""The report of a study: `python -m iolaus.report FOLDER`, at any time, also while its runs go on.

`runs` reads the folder, `groups` and `grid` compare, `search` asks Optuna, `plots` and `search_plots` draw; `sections`
makes a `document` of it, which is written as Markdown and as `html`. It imports neither torch nor Hydra.
"""

import csv
import io
import time
from pathlib import Path

from iolaus.checkpoint import COLUMNS, write_atomically
from iolaus.report.runs import Study, read_study

CSV, MARKDOWN, HTML, PLOTS = "results.csv", "report.md", "report.html", "plots"


def write_report(folder: Path) -> Path:
    """Write the report of a folder with runs below it; returns the HTML's path.

    Raises ValueError, one line, where there is no folder or no run.
    """
    return report_study(read_study(Path(folder)))


def report_study(study: Study) -> Path:
    """Write results.csv, report.md, report.html and plots/ into a study's folder; returns the HTML's path."""
    from iolaus.report.document import to_markdown
    from iolaus.report.html import to_html
    from iolaus.report.sections import whole_document

    document = whole_document(study, foot=f"As of {time.strftime('%Y-%m-%d %H:%M')}. In full: {CSV}.")
    (study.folder / PLOTS).mkdir(exist_ok=True)
    for picture in document.pictures:
        write(study.folder / PLOTS / f"{picture.name}.png", picture.png)
    texts = {CSV: to_csv(study), MARKDOWN: to_markdown(document), HTML: to_html(document)}
    for name, text in texts.items():  # the page last of all: what it names is there
        write(study.folder / name, text.encode(errors="replace"))  # a folder's name may be no text
    return study.folder / HTML


def write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


def to_csv(study: Study) -> str:
    """One row a run, with numbers as they are: accuracies are fractions. What a run does not have is empty."""
    columns = {"last_val_accuracy": "val/accuracy", "last_test_accuracy": "test/accuracy", "objective": study.objective}
    whole = ("minutes", "images_per_second", "peak_memory_mib")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*study.varied, "status", *COLUMNS, *columns, "epochs", *whole, "error", "folder"])
    for run in study.runs:
        settings = [run.settings.get(key) for key in study.varied]
        numbers = [run.numbers.get(name) for name in (*COLUMNS, *columns.values())]
        totals = [int(run.numbers["epochs"]), *map(run.numbers.get, whole)]
        writer.writerow([*settings, run.status, *numbers, *totals, run.error, run.name])
    return text.getvalue()
