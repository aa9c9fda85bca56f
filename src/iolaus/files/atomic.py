"""Files that are whole or not there: each is written beside its final name and moved over it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from iolaus.files.faults import find_fault


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write(file)` fill a binary file that then takes the place of `path`, all or nothing, through a crash too."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if (fault := find_fault(error)) is None:
            raise
        raise OSError(fault.errno, fault.strerror, str(path)) from error  # the file that the user knows
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself must reach the disk; Windows has no such call
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dict as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty dict where the file is missing, broken, or holds something else."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):  # deep nesting
        return {}
    return content if isinstance(content, dict) else {}
