"""Pictures in files: listed in class folders, known by their headers, checked for the same picture in two splits."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from iolaus.data.folder_layout import SplitFolder, names
from iolaus.data.listing import FolderTree, known_formats, suffix_of
from iolaus.data.ticks import tell_progress
from iolaus.errors import printable

if TYPE_CHECKING:
    from PIL.Image import Image

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
EIGHT_BIT_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")  # neither more bits nor transparency
SAMPLE = 64  # headers that are always read
TAIL_BYTES = 4096  # of files of one size: compressed pictures differ at their ends


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before the pixels. mode: Pillow's; transparent: whether it may have holes."""

    mode: str
    width: int
    height: int
    transparent: bool

    @property
    def is_grey(self) -> bool:
        return self.mode in GREY_MODES

    @property
    def is_deep(self) -> bool:
        """Whether it has more than 8 bits a pixel, whose range must be known."""
        return self.mode.startswith(("I", "F"))


class ImageFiles:
    """Pictures by their files, items of (PIL image as the file has it, class). samples: (path, class index) pairs."""

    def __init__(self, samples: Sequence[tuple[str, int]], classes: list[str]) -> None:
        self.samples, self.classes = samples, classes
        self.targets = [label for _, label in samples]
        self.unusual: list[int] = []  # those among them with more than 8 bits or with transparency, by their headers

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple["Image", int]:
        from PIL import Image

        path, label = self.samples[index]
        with Image.open(path, formats=known_formats()) as image:
            image.load()
        return image, label

    def file(self, index: int) -> tuple[str | None, bool]:
        """The file of a picture, and that it may be of any kind (`LazyImages.file`)."""
        return self.samples[index][0], False

    def header(self, index: int) -> Header | None:
        """The header of a picture; None if it can't be read, which is told when the picture is."""
        from PIL import Image

        try:
            with Image.open(self.samples[index][0], formats=known_formats()) as image:
                return Header(image.mode, *image.size, image.has_transparency_data)
        except Exception:  # whatever a plugin raises
            return None

    def headers_of(self, indices: Sequence[int]) -> dict[int, Header]:
        """{index: header} of an even sample of `indices` and of every file that may change how all are read.

        Once a picture in color was seen, JPEG files, which have neither more than 8 bits nor transparency, are passed.
        """
        sample = indices[:: -(-len(indices) // SAMPLE)]
        found: dict[int, Header] = {}
        color = False
        for index in tell_progress([*sample, *sorted(set(indices) - set(sample))], "headers read", len(indices)):
            plain = suffix_of(self.samples[index][0]) in EIGHT_BIT_SUFFIXES
            if not (color and plain and len(found) >= len(sample)) and (header := self.header(index)):
                found[index] = header
                color |= not header.is_grey
        self.unusual = [index for index, header in found.items() if header.is_deep or header.transparent]
        return found


def list_split(tree: FolderTree, split: SplitFolder, classes: list[str]) -> ImageFiles:
    """The pictures of a split, by class and path. Raises ValueError for a class without any."""
    number = {name: label for label, name in enumerate(classes)}
    seen: set[tuple[int, int]] = set()
    if split.labels:
        paths = tree.pictures(split.path, seen)
        stems = (os.path.splitext(os.path.basename(path))[0] for path in paths)
        labels = [(path, number[split.labels[stem]]) for path, stem in zip(paths, stems, strict=True)]
        return ImageFiles(sorted(labels, key=lambda sample: (sample[1], sample[0])), classes)
    # the class folders first: a link in one of them that leads to another does not take its pictures
    names_of_one = [name for name in classes if name in split.classes and not tree.claim(split.classes[name])]
    if names_of_one:
        raise ValueError(f"{names(names_of_one)}: links to other folders of the data; a picture has one class")
    samples, empty = [], []
    for name in classes:
        if name in split.classes:
            found = tree.pictures(split.classes[name], seen)
            samples += [(path, number[name]) for path in found]
            empty += [] if found else [name]
    if empty:
        left = tree.describe_left_out()
        shown = ", ".join(map(printable, empty[:10])) + (f" and {len(empty) - 10} more" if empty[10:] else "")
        raise ValueError(f"no images for the classes {shown}{f' ({left})' if left else ''}")
    return ImageFiles(samples, classes)


def order_classes(found: Sequence[str], natural: bool) -> list[str]:
    """Class names in the order of their characters, as torchvision; or with numbers by value (2 before 10)."""
    if not natural:
        return sorted(found)
    parts = {name: [part for part in re.split(r"(\d+)", name) if part] for name in found}
    return sorted(found, key=lambda name: [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts[name]])


def count_copies(ours: Sequence[str], others: Sequence[str]) -> tuple[int, str]:
    """(the number of files of `ours` whose bytes are those of one of `others`, one of them).

    Only files of equal size are read: their ends first, and all of those that agree there.
    """
    groups: dict[str, tuple[object, ...]] = {path: (size,) for path in (*ours, *others) if (size := file_size(path))}
    for digest in (tail_digest, whole_digest):
        common = {groups.get(path) for path in ours} & {groups.get(path) for path in others}
        groups = {path: (*key, digest(path)) for path, key in groups.items() if key in common}
    known = {groups[path] for path in others if path in groups}
    repeated = [path for path in ours if path in groups and groups[path] in known]
    return len(repeated), repeated[0] if repeated else ""


def file_size(path: str) -> int:
    """Bytes of a file; 0 where it can't be told."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def tail_digest(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        return blake2b(file.read(TAIL_BYTES), digest_size=16).digest()


def whole_digest(path: str) -> bytes:
    with open(path, "rb") as file:
        digest = blake2b(digest_size=16)
        while block := file.read(2**20):
            digest.update(block)
        return digest.digest()
