"""A dataset that lives on the device as uint8, and whose batches are gathered and augmented there."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from iolaus.data.splits import Split
from iolaus.seeds import ORDER, seed_of


def plan(count: int, image_size: int, augmentation: Any, seed: int, epoch: int) -> tuple[Tensor, Tensor | None]:
    """What a training epoch does, drawn from `(seed, epoch)`: the images' order, and each one's augmentation.

    Returns (order, drawn): (count,) int64, and row k of `drawn` belongs to the k-th image of the epoch.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, epoch, ORDER))
    order = torch.randperm(count, generator=generator)
    return order, augmentation.draw(count, image_size, generator) if augmentation else None


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 to float32, (image / 255 − mean) / std per channel."""
    return images.float().sub_(mean * 255).div_(std * 255)


class Resident:
    """All images on the device. See `iolaus.data` for the interface.

    split: images (n, channels, size, size) uint8; statistics: mean and std, (1, channels, 1, 1) each;
    augmentation: has `draw` and `apply` (iolaus.augment), or None.
    """

    def __init__(
        self, split: Split, num_classes: int, statistics: tuple[Tensor, Tensor], augmentation: Any, seed: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        assert isinstance(split.images, Tensor)  # `Split.shaped` has made it so
        self.images, self.targets = split.images.to(device), split.targets.to(device)
        self.mean, self.std = (values.to(device) for values in statistics)
        self.num_classes, self.augmentation, self.seed, self.device = num_classes, augmentation, seed, device

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, batch_size: int, epoch: int, train: bool, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Training: a permutation in full batches only. Evaluation: every image once, in order."""
        count = len(self)
        order, drawn = (
            plan(count, self.images.shape[-1], self.augmentation, self.seed, epoch) if train else (None, None)
        )
        order = order.to(self.device) if order is not None else None
        drawn = drawn.to(self.device) if drawn is not None else None
        last = count - count % batch_size if train else count
        for first in range(start * batch_size, last, batch_size):
            part = slice(first, min(first + batch_size, last))
            chosen = part if order is None else order[part]
            images = self.images[chosen]
            if drawn is not None:
                images = self.augmentation.apply(images, drawn[part])
            yield normalise(images, self.mean, self.std), self.targets[chosen]

    def close(self) -> None:
        """Nothing to end: the images are freed with the object."""
