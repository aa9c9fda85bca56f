"""The storage that a study's multirun.yaml names, to be read: the file can be a stranger's."""

import re
from pathlib import Path


def readable_url(url: str) -> str | None:
    """An SQLAlchemy URL from which a study is read and nothing made; None where it names nothing that can be read.

    An SQLite file is opened read-only. Raises ValueError for any other URL: no server is asked for a file's sake, and
    another driver may write any file.
    """
    if (path := sqlite_path(url)) is None:
        raise ValueError("a storage that a file names must be one of SQLite's")
    file = Path(path)
    return f"sqlite:///file:{file.absolute()}?mode=ro&uri=true" if is_readable_database(file) else None


def sqlite_path(url: str) -> str | None:
    """The path in an SQLite URL, as it is written; None for another URL, and for one with options."""
    found = re.fullmatch(r"sqlite(?:\+pysqlite)?:///([^?#]+)", url)
    return found[1] if found else None


def is_readable_database(file: Path) -> bool:
    """Whether a file is one of SQLite's that reading leaves alone: beside one with a write-ahead log it makes files."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        header = stream.read(20)
    return header[:16] == b"SQLite format 3\0" and header[18:20] == b"\1\1"  # 2 is WAL (sqlite.org/fileformat2.html)
