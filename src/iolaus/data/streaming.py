"""A dataset that is read while it trains: worker processes decode, the device augments whole batches."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from iolaus.augment.pipeline import Augmentation
from iolaus.data.reading import Item, Reader
from iolaus.data.resident import Batch, Normalise, Pass, bounds
from iolaus.data.shape import ImageShape
from iolaus.data.splits import BrokenImage, Split


class Streaming:
    """Images read by worker processes. See `iolaus.data` for the interface.

    Order and augmentation are drawn as in `Resident`, so that both give the same batches, whatever the number of
    workers; only a random resized crop (augmentation.scale) is taken of the whole photograph here, and of the kept
    square there. settings: settings.DatasetSettings. Raises BrokenImage.
    """

    def __init__(
        self, split: Split, shape: ImageShape, statistics: tuple[Tensor, Tensor], settings: Any,
        device: torch.device, *, augmentation: Augmentation | None = None, seed: int = 0, drop_last: bool = True,
        shuffle: bool = True, memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:  # fmt: skip
        pin = device.type == "cuda" if settings.pin_memory is None else settings.pin_memory
        self.reader = Reader(split.images, shape, settings, augmentation=augmentation, pin=pin)
        self.images, self.targets, self.shape, self.device = split.images, split.targets, shape, device
        self.normalise = Normalise(*statistics, shape.size, device)
        self.augmentation, self.seed = augmentation, seed
        self.drop_last, self.shuffle = drop_last, shuffle
        self.memory_format = memory_format

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, batch_size: int, epoch: int, train: bool, start: int = 0) -> Iterator[Batch]:
        """Training: a permutation. Evaluation: every image once, in order, and nothing random."""
        count = len(self)
        epoch_pass = Pass(count, self.shape, self.augmentation if train else None, self.seed, epoch,
                          shuffle=train and self.shuffle)  # fmt: skip
        parts = bounds(count, batch_size, train and self.drop_last, start)
        for number, (images, kept) in enumerate(self._on_device(epoch_pass, parts), start):
            drawn = epoch_pass.rows(kept)
            images = images.contiguous(memory_format=self.memory_format)
            images = self.normalise(epoch_pass.augmented(images, drawn))
            targets = self.targets[epoch_pass.order[kept]].to(self.device, non_blocking=True)
            yield epoch_pass.finished(images, targets, drawn, number)

    def _on_device(self, epoch_pass: Pass, parts: list[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, which images of the epoch these are), each batch on the device before the one before it is done.

        Under CUDA the copy runs on a stream of its own, beside the computation.
        """
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        ahead = None
        reads = epoch_pass.augmentation is not None and epoch_pass.augmentation.reads
        plan = [self._items(epoch_pass, part, reads) for part in parts]
        for part, (images, places) in zip(parts, self.reader.read(plan), strict=True):
            if not places:
                raise BrokenImage(f"no image of a batch can be read; one of them: {min(self.reader.skipped)}")
            kept = torch.arange(part.start, part.stop)[places]
            if stream is None:
                yield images.to(self.device), kept
                continue
            with torch.cuda.stream(stream):
                images = images.to(self.device, non_blocking=True)
            if ahead is not None:
                yield self._arrived(ahead, stream)
            ahead = images, kept
        if ahead is not None and stream is not None:
            yield self._arrived(ahead, stream)

    def _arrived(self, batch: tuple[Tensor, Tensor], stream: Any) -> tuple[Tensor, Tensor]:
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(stream)
        batch[0].record_stream(current)  # its memory is not given away while the computation still reads it
        return batch

    @staticmethod
    def _items(epoch_pass: Pass, part: slice, reads: bool) -> list[Item]:
        indices = epoch_pass.order[part].tolist()
        if not reads:
            return [Item(index) for index in indices]
        boxes = epoch_pass.drawn.get("box")
        return [
            Item(index, seed, {} if boxes is None else {"box": boxes[k : k + 1]})
            for k, index, seed in zip(range(part.start, part.stop), indices, epoch_pass.seeds(part), strict=True)
        ]

    def close(self) -> None:
        """End the processes that read."""
        self.reader.close()
