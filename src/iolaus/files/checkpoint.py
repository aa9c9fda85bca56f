"""Checkpoints: a kill at any moment leaves the old one or the new one.

The zip container of a checkpoint holds a CRC-32 of every tensor, which torch does not look at and we do: a flipped
byte in a weight would load silently otherwise.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.errors import first_line
from iolaus.files.atomic import write_atomically

if TYPE_CHECKING:
    import torch

DOS_FOLDER = 0x10  # the bit of a zip entry's attributes


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain containers to `path`, atomically."""
    import torch

    write_atomically(path, lambda file: torch.save(state, file))


def load(path: Path, device: "torch.device | str" = "cpu", needs: Sequence[str] = ()) -> dict[str, Any]:
    """Read what `save` wrote, tensors only (`weights_only=True`).

    needs: the dicts that must be in it. Raises ValueError, one line, when the file is missing or not as it was written.
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
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such checkpoint") from error
    except PermissionError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror})") from error
    except Exception as error:  # zipfile, pickle and torch each have their own for a broken file, some without words
        raise ValueError(f"{path}: the checkpoint is damaged ({first_line(error)})") from error
    if lacking := [key for key in needs if not isinstance(content, dict) or not isinstance(content.get(key), dict)]:
        raise ValueError(f"{path}: is no such checkpoint of a run (it has no {' and no '.join(lacking)})")
    return content
