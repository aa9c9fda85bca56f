"""Images listed in a CSV file: a column of paths, one of labels, and perhaps one of splits (`dataset=csv`)."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from iolaus.data.folder_layout import SPLIT_NAMES
from iolaus.data.image_files import ImageFiles, order_classes
from iolaus.data.make_source import make_source, split_of
from iolaus.data.split import Source, Split
from iolaus.data.stratify import stratify
from iolaus.errors import nearest, printable
from iolaus.settings import require_folder, require_fraction

# the usual names of columns, in lower case; the first one that the file has is taken
PATH_COLUMNS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_id",
    "img",
    "id",
)
LABEL_COLUMNS = ("label", "class", "target", "category", "class_name", "y", "diagnosis", "breed", "species")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPG", ".tif", ".webp")  # many lists name images without one
SHOWN = 3


def csv_file(
    file: str,
    root: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    test_fraction: float = 0.2,
) -> Source:
    """The images that a table lists, with a line of column names; separated by commas, semicolons or tabs.

    Paths are relative to `root`, the file's own folder by default, with or without a suffix. Labels are words or
    numbers, each of which is a class; whole numbers are ordered by value. A column of splits says train, val or test;
    without test rows val is the test set, and without either a stratified `test_fraction` of the images, always the
    same. Rows without a label, as of a competition's test set, are left out and told. Raises ValueError.
    """
    table = Path(file)
    require_fraction("test_fraction", test_fraction)
    if root is not None:
        require_folder("root", root)
    rows, columns = read_rows(table)
    path_key = find_column("path_column", path_column, PATH_COLUMNS, columns)
    label_key = find_column("label_column", label_column, LABEL_COLUMNS, columns)
    split_key = None
    if split_column is not None or any(name.lower() in SPLIT_COLUMNS for name in columns):
        split_key = find_column("split_column", split_column, SPLIT_COLUMNS, columns)
    labelled = [row for row in rows if row[label_key]]
    if not labelled:
        raise ValueError(f"file={file}: no row has a value in its column {label_key}")
    classes = order_labels({row[label_key] for row in labelled})
    if len(classes) < 2:
        raise ValueError(f"file={file}: one class, {printable(classes[0])}: nothing to tell apart")
    paths = find_files([row[path_key] for row in labelled], Path(root) if root else table.parent, file)
    number = {name: label for label, name in enumerate(classes)}
    samples = [(path, number[row[label_key]]) for path, row in zip(paths, labelled, strict=True)]
    roles = [find_role(row[split_key], file, split_key) if split_key else "train" for row in labelled]
    parts = {
        role: [s for s, own in zip(samples, roles, strict=True) if own == role] for role in ("train", "val", "test")
    }
    if not parts["train"]:
        raise ValueError(f"file={file}: no row is of the split train")
    splits = {role: split_of(ImageFiles(part, classes)) for role, part in parts.items() if part}
    source = assemble(splits, classes, test_fraction)
    source.layout = f"{table.name}: {path_key}, {label_key}{f', {split_key}' if split_key else ''}"
    if left := len(rows) - len(labelled):
        source.notes.append(f"left out: {left} rows of {printable(table.name)} without a label")
    return source


def read_rows(table: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a table by column, their values stripped of blanks, and the names of the columns."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"file={table}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"file={table}: is no text in UTF-8") from error
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    try:
        lines = [line for line in csv.reader(text.splitlines(), delimiter=separator, strict=True) if line]
    except csv.Error as error:
        raise ValueError(f"file={table}: {error}") from error
    if len(lines) < 2 or len(lines[0]) < 2:
        raise ValueError(f"file={table}: must have a line of column names, of two columns or more, and rows below it")
    columns = [name.strip() for name in lines[0]]
    for place, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise ValueError(f"file={table}: row {place} has {len(line)} values, the first line {len(columns)} names")
    return [dict(zip(columns, (value.strip() for value in line), strict=True)) for line in lines[1:]], columns


def find_column(key: str, given: str | None, usual: Sequence[str], columns: Sequence[str]) -> str:
    """The column that the user named, or the only one with a usual name."""
    if given is not None:
        if given not in columns:
            raise ValueError(f"{key}={given}: no such column; {nearest(given, columns)}")
        return given
    known = {name.lower(): name for name in reversed(columns)}
    found = next((known[name] for name in usual if name in known), None)
    if found is None:
        names = ", ".join(map(printable, columns))
        raise ValueError(f"{key}=null: which of the columns is it? {names}")
    return found


def order_labels(labels: set[str]) -> list[str]:
    """Class names: whole numbers by value, everything else by its characters."""
    numbers = all(label.lstrip("-").isdecimal() for label in labels)
    return sorted(labels, key=int) if numbers else order_classes(sorted(labels), natural=False)


def find_files(names: Sequence[str], root: Path, file: str) -> list[str]:
    """The files of the rows. Raises ValueError, with a few of them, where some are not there or come twice."""
    found = [next((p for p in (f"{root / name}{end}" for end in ENDINGS) if Path(p).is_file()), None) for name in names]
    if missing := [name for name, path in zip(names, found, strict=True) if path is None]:
        first = ", ".join(printable(name) for name in missing[:SHOWN])
        raise ValueError(
            f"file={file}: {len(missing)} of {len(names)} files are not in {root} ({first}); see dataset.root"
        )
    paths = [path for path in found if path is not None]
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise ValueError(f"file={file}: {len(twice)} files are listed more than once ({printable(twice[0])})")
    return paths


def find_role(value: str, file: str, column: str) -> str:
    """train, val or test for a value of the column of splits."""
    role = SPLIT_NAMES.get(value.lower())
    if role is None:
        given = printable(value) or "nothing"
        raise ValueError(f"file={file}: {given} in the column {column}; {nearest(value, SPLIT_NAMES)}")
    return role


def assemble(splits: dict[str, Split], classes: list[str], test_fraction: float) -> Source:
    """A Source of what splits there are: val is the test set where there is none, else a part of train."""
    train, val, test = splits["train"], splits.get("val"), splits.get("test")
    if test is None and val is not None:
        val, test = None, val
    if test is None:
        rest, held_out = stratify(train.targets, test_fraction, 0, classes)
        train, test = train.take(rest), train.take(held_out)
    return make_source(train, test, classes, val)
