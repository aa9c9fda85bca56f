"""Checkpoints that are whole or not there, and the names of the files in a run folder.

A file is written beside its final name and moved over it, so that a kill at any moment leaves the old one or the
new one. Its zip container holds a CRC-32 of every tensor, which torch does not look at and we do: a flipped byte
in a weight would load silently otherwise.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

LAST, BEST, RESULTS, METRICS, CURVES = "last.pt", "best.pt", "results.json", "metrics.jsonl", "curves.png"
LOCK = ".lock"  # held by the process that trains in the folder
# of results.json, which tables and reports show
COLUMNS = (
    "best_train_accuracy", "best_val_accuracy", "best_test_accuracy",
    "best_train_loss", "best_val_loss", "best_test_loss",
)  # fmt: skip
# its status; what is done, no later start of its sweep goes on with
DONE = FINISHED, PRUNED = "finished", "pruned"
FAILED = "failed"
DOS_FOLDER = 0x10  # the bit of a zip entry's attributes


def write_atomically(path: Path, write: Any) -> None:
    """Let `write(file)` fill a binary file that then takes the place of `path`, all or nothing, through a crash too."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself must reach the disk; Windows has no such call
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain containers to `path`, atomically."""
    import torch

    write_atomically(path, lambda file: torch.save(state, file))


def load(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Read what `save` wrote, tensors only (`weights_only=True`).

    Raises ValueError, one line, when the file is missing or not as it was written.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & DOS_FOLDER]
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged} is wrong")
        if folders:  # torch would not read it, and leave the tensor's memory as it happens to be
            raise zipfile.BadZipFile(f"{folders[0]} says that it is a folder")
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such checkpoint") from error
    except Exception as error:  # zipfile, pickle and torch each have their own for a broken file, some without words
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: the checkpoint is damaged ({reason})") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dict as indented JSON, atomically."""
    text = json.dumps(content, indent=2, default=str) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty dict where the file is missing or broken."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
