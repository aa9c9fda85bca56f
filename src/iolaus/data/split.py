"""What a reader gives: images and targets of train and test, in memory or read one by one."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, SupportsInt

import numpy as np
import torch
from torch import Tensor

from iolaus.data.decode import Reduction, Whole, ask, file_of, read_file
from iolaus.data.image_files import ImageFiles
from iolaus.errors import RunFailed, first_line, printable
from iolaus.images import PixelRules, as_uint8, from_pil

if TYPE_CHECKING:
    from PIL.Image import Image

    from iolaus.data.prepare import PreparedImages


class BrokenImage(RunFailed, ValueError):
    """An image that can't be read; the message names its file."""


class ImageDataset(Protocol):
    """A dataset in torchvision's manner, whose items are (image, class index)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple["Image | Tensor | np.ndarray", SupportsInt]: ...


@dataclass
class Split:
    """images: (n, channels, height, width) uint8, or read one by one; targets: (n,) int64."""

    images: "Tensor | LazyImages"
    targets: Tensor

    def take(self, indices: Tensor) -> "Split":
        """The part of the split at `indices` (int64); images in memory are copied."""
        images = self.images[indices] if isinstance(self.images, Tensor) else self.images.take(indices)
        return Split(images, self.targets[indices])


@dataclass
class Source:
    """A dataset as its reader gives it: official train and test, class names, and the shape of its images.

    image_size: what they are brought to where nobody says otherwise. shorter_side: of the images as they are, the
    median of the sizes that were seen; 0 where none was. val: the official validation set, None where a part of train
    is to be held out. layout: how the splits came about, for the run's first line; notes: what the log says of the
    data. prepared: what the last run of a sweep made of it, for the next run (see data/prepare.py).
    """

    train: Split
    test: Split
    classes: list[str]
    channels: int
    image_size: int
    val: Split | None = None
    layout: str = ""
    notes: list[str] = field(default_factory=list)
    shorter_side: int = 0
    prepared: "PreparedImages | None" = field(default=None, repr=False)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


class LazyImages:
    """Images that are read on access. indices: the items of `dataset` that belong to them, in order.

    rules: how pictures become bytes.
    """

    def __init__(self, dataset: ImageDataset, indices: Sequence[int], rules: PixelRules | None = None) -> None:
        self.dataset, self.indices, self.rules = dataset, indices, rules or PixelRules()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index` as (1, channels, height, width) uint8. Raises BrokenImage, naming the file."""
        return self.read(index, lambda height, width: 1)[0]

    def read(self, index: int, reduction: Reduction) -> tuple[Tensor, Whole]:
        """Image `index` as (1, channels, height, width) uint8, and what the whole picture is.

        reduction: by how much it may be decoded smaller, called once. Raises BrokenImage, naming the file.
        """
        path, only_rgb = self.file(index)
        try:
            if path is not None:
                with pixel_limit(self.rules.max_pixels):
                    found = read_file(path, self.rules, reduction, only_rgb)
                if found is not None:
                    return found
        except Exception as error:  # whatever Pillow raises
            raise self._broken(index, error) from error
        item = self.item(index)
        try:
            pixels = _to_uint8(item, self.rules)
        except Exception as error:  # what PIL raises on conversion, and pixels that are none
            raise self._broken(index, error) from error
        return pixels, ask(reduction, pixels)

    def file(self, index: int) -> tuple[str | None, bool]:
        """The file of an image if it may be read without the dataset, and whether this is so of RGB JPEGs only."""
        position = self.indices[index]
        if isinstance(self.dataset, ImageFiles | JoinedImages):
            return self.dataset.file(position)
        return file_of(self.dataset, position), True

    def item(self, index: int) -> "Image | Tensor | np.ndarray":
        """Image `index` as the dataset gives it. Raises BrokenImage, naming the file."""
        try:
            with pixel_limit(self.rules.max_pixels):
                return self.dataset[self.indices[index]][0]
        except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, DecompressionBombError, ...
            raise self._broken(index, error) from error

    def _broken(self, index: int, error: Exception) -> BrokenImage:
        limit = "; dataset.max_pixels sets the limit" if type(error).__name__ == "DecompressionBombError" else ""
        name = self.name(index)
        told = error.strerror if isinstance(error, OSError) else None
        why = (told or first_line(error)).replace(f" {name!r}", "")  # the line has the name already
        why = why.replace(repr(name)[1:-1], "the file").replace(name, "the file")
        return BrokenImage(f"can't read image {printable(name)}: {printable(why)}{limit}")

    def readable(self, indices: Iterable[int]) -> Iterator[Tensor]:
        """Those images at `indices` that can be read. Raises BrokenImage when none of them can."""
        first, any_read = None, False
        for index in indices:
            try:
                yield self[index]
                any_read = True
            except BrokenImage as error:
                first = first or error
        if first is not None and not any_read:
            raise first

    def readable_items(self, indices: Iterable[int]) -> Iterator[tuple[int, object]]:
        """(index, item) of those at `indices` that can be read."""
        for index in indices:
            with contextlib.suppress(BrokenImage):
                yield index, self.item(index)

    def name(self, index: int) -> str:
        """The file of an image if the dataset knows it, else the image's number there."""
        position = self.indices[index]
        samples = getattr(self.dataset, "samples", None) or getattr(self.dataset, "_images", None)
        sample = samples[position] if samples else position
        return str(sample[0] if isinstance(sample, tuple) else sample)

    def take(self, indices: Tensor) -> "LazyImages":
        """The images at `indices` (int64), still unread."""
        return LazyImages(self.dataset, [self.indices[i] for i in indices.tolist()], self.rules)


def read_image(images: "Tensor | LazyImages", index: int, reduction: Reduction) -> tuple[Tensor, Whole]:
    """`LazyImages.read`, for images in memory, too."""
    if isinstance(images, LazyImages):
        return images.read(index, reduction)
    image = images[index : index + 1]
    return image, ask(reduction, image)


@contextlib.contextmanager
def pixel_limit(most: int | None) -> Iterator[None]:
    """Let Pillow read pictures of at most so many pixels; None leaves its own limit."""
    if most is None:
        yield
        return
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = -(-most // 2)  # Pillow warns from here on, and refuses what is twice as large
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _to_uint8(image: "Image | Tensor | np.ndarray", rules: PixelRules) -> Tensor:
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image)
        image = image.permute(2, 0, 1) if image.ndim == 3 and image.shape[-1] in (1, 3) else image
    if not isinstance(image, Tensor):
        return from_pil(image, rules)
    return as_uint8(image).reshape(1, -1, *image.shape[-2:])


class JoinedImages:
    """Several datasets one after another, as one (`ImageDataset`)."""

    def __init__(self, parts: Sequence[LazyImages]) -> None:
        self.samples = [(part.name(index), part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple["Image | Tensor | np.ndarray", SupportsInt]:
        _, part, inner = self.samples[index]
        image, target = part.dataset[part.indices[inner]]
        return image, target

    def file(self, index: int) -> tuple[str | None, bool]:
        _, part, inner = self.samples[index]
        return part.file(inner)


def join(first: Split, second: Split) -> Split:
    """The images of two splits of one dataset as one split."""
    targets = torch.cat([first.targets, second.targets])
    if isinstance(first.images, LazyImages) and isinstance(second.images, LazyImages):
        joined = JoinedImages([first.images, second.images])
        return Split(LazyImages(joined, range(len(joined)), first.images.rules), targets)
    assert isinstance(first.images, Tensor)
    assert isinstance(second.images, Tensor)
    return Split(torch.cat([first.images, second.images]), targets)
