"""A dataset that is read while it trains: worker processes decode, the device augments whole batches."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iolaus.data.resident import normalise, plan
from iolaus.data.shape import to_shape
from iolaus.data.splits import BrokenImage, Split


class _Shaped(Dataset[Tensor]):
    def __init__(self, images: Any, channels: int, image_size: int) -> None:
        self.images, self.channels, self.image_size = images, channels, image_size

    def __getitem__(self, index: int) -> Tensor:
        image = self.images[index]
        return to_shape(image if image.ndim == 4 else image.unsqueeze(0), self.channels, self.image_size)[0]


class Streaming:
    """Images read by a DataLoader's workers. See `iolaus.data` for the interface.

    Workers only decode and bring to shape; order and augmentation are drawn as in `Resident`, so that both give
    the same batches, whatever the number of workers. Raises BrokenImage.
    """

    def __init__(
        self, split: Split, num_classes: int, statistics: tuple[Tensor, Tensor], augmentation: Any, seed: int,
        device: torch.device, *, channels: int, image_size: int, num_workers: int | None = None,
    ) -> None:  # fmt: skip
        self.dataset, self.targets = _Shaped(split.images, channels, image_size), split.targets
        self.mean, self.std = (values.to(device) for values in statistics)
        self.num_classes, self.augmentation, self.seed, self.device = num_classes, augmentation, seed, device
        self.image_size = image_size
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(4, cores) if num_workers is None else num_workers
        self.indices: list[list[int]] = []  # of the pass at hand; the loader and its workers outlive it
        self.loader = DataLoader(
            self.dataset, batch_sampler=self.indices, num_workers=workers, persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, batch_size: int, epoch: int, train: bool, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Training: a permutation in full batches only. Evaluation: every image once, in order."""
        order, drawn = torch.arange(len(self)), None
        if train:
            order, drawn = plan(len(self), self.image_size, self.augmentation, self.seed, epoch)
            order = order[: len(self) - len(self) % batch_size]
        parts = order.split(batch_size)[start:]
        self.indices[:] = [part.tolist() for part in parts]
        for k, (images, part) in enumerate(zip(self._read(), parts, strict=True), start):
            images = images.to(self.device, non_blocking=True)
            if drawn is not None:
                here = drawn[k * batch_size : k * batch_size + len(part)]
                images = self.augmentation.apply(images, here.to(self.device, non_blocking=True))
            yield normalise(images, self.mean, self.std), self.targets[part].to(self.device, non_blocking=True)

    def _read(self) -> Iterator[Tensor]:
        try:
            yield from self.loader
        except BrokenImage as error:  # a worker's message holds its traceback, and ours as the last line
            raise BrokenImage(str(error).strip().splitlines()[-1].rpartition("BrokenImage: ")[2]) from error

    def close(self) -> None:
        """End the worker processes. Left to the garbage collector they can wait for seconds, and in a sweep pile up."""
        iterator = getattr(self.loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()
            self.loader._iterator = None
