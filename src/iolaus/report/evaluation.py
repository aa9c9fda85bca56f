"""What `iolaus evaluate` has left in the folder of a run: its figures, the confusion matrix, the mistakes."""

import base64
from pathlib import Path
from urllib.parse import quote

from iolaus.files.atomic import read_json
from iolaus.files.layout import BEST, CONFUSION, EVALUATION, MISTAKES
from iolaus.report.configurations import merit_of
from iolaus.report.document import Block, Cell, Column, Facts, Photo, Section, Table, Text
from iolaus.report.parsing import get_nested, numbers_in, text_in
from iolaus.report.runs import MOST_ROWS, Run, Study
from iolaus.show.numbers import MISSING, format_metric, metric_of

MOST_BYTES = 4_000_000  # of a picture, so that the page can still be sent
COUNTS = {"epoch": 1, "images": 0, "skipped_images": 0}  # whole numbers, and where they are shown from
PNG = b"\x89PNG\r\n\x1a\n"


def evaluation_section(study: Study) -> list[Section]:
    """The evaluation of a study's run, of the best one that has been evaluated; none where none has been."""
    evaluated = [(run, found) for run in study.runs if (found := read_json(run.folder / EVALUATION))]
    if not evaluated:
        return []
    run, found = min(evaluated, key=lambda pair: merit_of(study, pair[0]))
    facts = {name: text_in(found.get(name)) for name in ("split", "weights", "data")}
    facts |= {metric_of(name).word: format_figure(name, value) for name, value in numbers_in(found).items()}
    if facts.get(metric_of("skipped_images").word) == "0":
        del facts[metric_of("skipped_images").word]
    blocks: list[Block] = [Facts([(name, value) for name, value in facts.items() if value])]
    best_epoch = get_nested(run.result, "metrics", "best", "epoch")
    if found.get("weights") == BEST and best_epoch is not None and found.get("epoch") != best_epoch:
        blocks.append(Text(f"Of an earlier {BEST}: the run has become better since; evaluate it again.", "note"))
    blocks += [*pictures_of(run, study), *class_table(found)]
    title = "Evaluation" if len(study.runs) == 1 else f"Evaluation of {run.name}"
    return [Section(title, blocks)]


def format_figure(name: str, value: float) -> str:
    """A number of an evaluation: counts are whole, epochs are shown from 1."""
    return f"{value + COUNTS[name]:,.0f}" if name in COUNTS else format_metric(name, value)


def pictures_of(run: Run, study: Study) -> list[Block]:
    """The pictures of an evaluation, within the page where they are small enough."""
    blocks: list[Block] = []
    for name, title in ((CONFUSION, "Confusion matrix"), (MISTAKES, "The most confident mistakes")):
        path = run.folder / name
        if not is_png(path):
            continue
        where = quote(path.relative_to(study.folder).as_posix(), safe="/=,+", errors="replace")
        if path.stat().st_size > MOST_BYTES:
            blocks.append(Text(f"{title}: {where}", "note"))
            continue
        content = base64.b64encode(path.read_bytes()).decode()
        blocks.append(Photo(title, where, f"data:image/png;base64,{content}"))
    return blocks


def is_png(path: Path) -> bool:
    """Whether a file of a run's folder is a PNG; a link may lead out of the folder, to what nobody wants to send."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(PNG)) == PNG


def class_table(found: dict[str, object]) -> list[Block]:
    """Precision, recall and count of each class, the least recall first."""
    entries = found.get("per_class")
    rows = [row for row in entries if isinstance(row, dict)] if isinstance(entries, list) else []
    if not rows:
        return []
    rows.sort(key=lambda row: numbers_in(row).get("recall", 2.0))
    names = [name for name in ("recall", "precision", "f1", "count") if any(name in numbers_in(row) for row in rows)]

    def cell(row: dict[str, object], name: str) -> Cell:
        value = numbers_in(row).get(name)
        if value is None:
            return Cell(MISSING)
        return Cell(f"{value:,.0f}" if name == "count" else f"{100 * value:.2f}", order=value)

    columns = [Column("class", [Cell(text_in(get_nested(row, "class"))) for row in rows[:MOST_ROWS]], numeric=False)]
    for name in names:
        head = name if name == "count" else f"{name}, %"
        columns.append(Column(head, [cell(row, name) for row in rows[:MOST_ROWS]]))
    more = [Text(f"{len(rows) - MOST_ROWS} more are in {EVALUATION}.", "note")] if len(rows) > MOST_ROWS else []
    return [Table(columns, heads=1, sortable=True), *more]
