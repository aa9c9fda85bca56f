"""What a reader gives: images and targets of train and test, in memory or read one by one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iolaus.data.shape import as_uint8, from_pil
from iolaus.stopping import RunFailed


class BrokenImage(RunFailed, ValueError):
    """An image that can't be read; the message names its file."""


@dataclass
class Split:
    """images: (n, channels, height, width) uint8, or `Photos` read one by one; targets: (n,) int64."""

    images: "Tensor | Photos"
    targets: Tensor

    def take(self, indices: Tensor) -> "Split":
        """The part of the split at `indices` (int64); images in memory are copied."""
        return Split(self.images[indices] if isinstance(self.images, Tensor) else self.images.take(indices),
                     self.targets[indices])  # fmt: skip


@dataclass
class Source:
    """A dataset as it was found: official train and test, class names, and the shape of its images.

    prepared: what was made of it last, for the next run of a sweep that needs the same (see data.open).
    """

    train: Split
    test: Split
    classes: list[str]
    channels: int
    image_size: int
    prepared: Any = field(default=None, repr=False)


class Photos:
    """Images that are read when asked for, by index: a torchvision-like dataset, and which of its items."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index` as (1, channels, height, width) uint8. Raises BrokenImage, naming the file."""
        try:
            return _to_uint8(self.dataset[self.indices[index]][0])
        except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, DecompressionBombError, ...
            raise BrokenImage(f"can't read image {self.name(index)}: {error}") from error

    def readable(self, indices: Iterable[int]) -> Iterator[Tensor]:
        """The images at `indices` that can be read. Raises BrokenImage when none of them can."""
        first, any_read = None, False
        for index in indices:
            try:
                yield self[index]
                any_read = True
            except BrokenImage as error:
                first = first or error
        if first is not None and not any_read:
            raise first

    def name(self, index: int) -> str:
        """The file of an image where the dataset tells it, else its number there."""
        position = self.indices[index]
        samples = getattr(self.dataset, "samples", None) or getattr(self.dataset, "_images", None)
        sample = samples[position] if samples else position
        return str(sample[0] if isinstance(sample, tuple) else sample)

    def take(self, indices: Tensor) -> "Photos":
        return Photos(self.dataset, [self.indices[i] for i in indices.tolist()])


def _to_uint8(image: Any) -> Tensor:
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image)
        image = image.permute(2, 0, 1) if image.ndim == 3 and image.shape[-1] in (1, 3) else image
    if not isinstance(image, Tensor):
        return from_pil(image)
    return as_uint8(image).reshape(1, -1, *image.shape[-2:])


def stratified(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split indices so that `fraction` of each class is in the second part: (rest, part), both sorted int64.

    Raises ValueError when a class has fewer than two images, since both parts need one.
    """
    generator = np.random.default_rng(seed)
    part = []
    for label in targets.unique().tolist():
        members = generator.permutation(np.flatnonzero(targets.numpy() == label))
        if len(members) < 2:
            raise ValueError(f"class {label} has {len(members)} image: too few to hold out a part")
        part.append(members[: min(max(1, round(len(members) * fraction)), len(members) - 1)])
    chosen = np.zeros(len(targets), dtype=bool)
    chosen[np.concatenate(part)] = True
    return torch.from_numpy(np.flatnonzero(~chosen)), torch.from_numpy(np.flatnonzero(chosen))
