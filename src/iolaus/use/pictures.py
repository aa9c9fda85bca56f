"""Pictures that a user names: files, folders, patterns, a list on standard input, or images in memory."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from iolaus.data.image_files import ImageFiles
from iolaus.data.listing import FolderTree
from iolaus.errors import ConfigError
from iolaus.files.run_folder import RunFolder

if TYPE_CHECKING:
    from PIL.Image import Image


class Pictures(ImageFiles):
    """Pictures without classes, files or images in memory, read as those of an image folder are (`ImageDataset`)."""

    def __init__(self, pictures: "Sequence[str | Path | Image | np.ndarray | Tensor]") -> None:
        names = [str(p) if isinstance(p, str | Path) else str(i) for i, p in enumerate(pictures)]
        super().__init__([(name, 0) for name in names], [])
        self.pictures = pictures

    def __getitem__(self, index: int) -> "tuple[Image | np.ndarray | Tensor, int]":  # type: ignore[override]
        picture = self.pictures[index]
        if isinstance(picture, str | Path):
            return super().__getitem__(index)
        return (picture.copy() if isinstance(picture, np.ndarray) else picture), 0  # torch wants arrays of its own

    def file(self, index: int) -> tuple[str | None, bool]:
        return (self.samples[index][0] if isinstance(self.pictures[index], str | Path) else None), False


def list_files(given: Iterable[str], lines: Iterable[str]) -> list[str]:
    """The files that the arguments of `iolaus predict` mean, in their order.

    A folder stands for the images in it and below it, a pattern (`*.jpg`, `**/*.png`) for what matches, `-` for the
    paths in `lines`. A file that is not there stays in the list: reading it says so. Raises ConfigError for a folder or
    pattern without images.
    """
    files: list[str] = []
    for path in given:
        if path == "-":
            files += [name for line in lines if (name := line.rstrip("\r\n"))]
        elif RunFolder(Path(path)).is_run():
            raise ConfigError(f"{path}: is a run; after the first one come the pictures that it is to judge")
        elif Path(path).is_dir():
            found = FolderTree(Path(path)).pictures(path, set())
            if not found:
                raise ConfigError(f"{path}: no pictures in this folder, nor below it")
            files += found
        elif glob.has_magic(path) and not Path(path).exists():
            matches = sorted(match for match in glob.glob(path, recursive=True) if Path(match).is_file())
            if not matches:
                raise ConfigError(f"{path}: matches no file")
            files += matches
        else:
            files.append(path)
    return files
