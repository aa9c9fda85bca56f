"""A dataset that is read while it trains: worker processes decode, the device augments whole batches."""

from collections.abc import Iterator

import torch
from torch import Tensor

from iolaus.data.epoch import Batch, EpochPlan, EpochSettings, Normalise
from iolaus.data.reading import ImageReader, Item
from iolaus.data.split import BrokenImage, Split
from iolaus.machine.ranks import ALONE, Alone
from iolaus.settings import DatasetSettings


class Streaming:
    """Images read by worker processes, in batches (`epoch.Batches`). Raises BrokenImage.

    The batches equal those of `Resident`, whatever the number of workers, with one exception: a random resized crop
    (augmentation.scale) is cut from the whole photograph here, and from the kept square there.
    """

    def __init__(
        self,
        split: Split,
        settings: EpochSettings,
        dataset: DatasetSettings,
        device: torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        pin = device.type == "cuda" if dataset.pin_memory is None else dataset.pin_memory
        self.reader = ImageReader(
            split.images,
            settings.shape,
            dataset,
            augmentation=settings.augmentation,
            pin=pin,
            memory_format=memory_format,
        )
        self.images, self.targets, self.settings = split.images, split.targets, settings
        self.device = device
        self.normalise = Normalise(*settings.statistics, settings.shape.size, device)

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, batch_size: int, epoch: int, train: bool, start: int = 0, group: Alone = ALONE
    ) -> Iterator[Batch]:
        plan = EpochPlan(self.settings, len(self), epoch, train, group)
        parts = [torch.arange(len(self))[part] for part in plan.parts(batch_size, start)]
        for number, (images, places) in enumerate(self._on_device(plan, parts, train), start):
            drawn = plan.rows(places)
            images = self.normalise(plan.augment(images, drawn))
            targets = self.targets[plan.order[places]].to(self.device, non_blocking=True)
            yield plan.erase_and_mix(
                images, targets, drawn, number, first_read=bool(places[0] == parts[number - start][0])
            )
        if not train and len(self.reader.skipped) == len(self):
            raise BrokenImage(f"none of the {len(self)} images can be read; one of them: {min(self.reader.skipped)}")

    def _on_device(self, plan: EpochPlan, parts: list[Tensor], train: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of each part and their places in the epoch, copied to the device one batch ahead.

        The only readable image of a part comes twice in training.
        Under CUDA the copy runs on a stream of its own, beside the computation.
        """
        stream: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            stream = torch.cuda.Stream(self.device)
        ahead = None
        reads = plan.augmentation is not None and plan.augmentation.reads
        items = [self._items(plan, part, reads) for part in parts]
        for part, (images, good) in zip(parts, self.reader.read(items), strict=True):
            if not good and train:
                raise BrokenImage(f"no image of a batch can be read; one of them: {min(self.reader.skipped)}")
            if not good:
                continue
            places = part[good]
            if train and len(good) == 1 < len(part):  # BatchNorm has no variance of one image
                images, places = images.repeat(2, 1, 1, 1), places.repeat(2)
            if stream is None:
                yield images.to(self.device), places
                continue
            with torch.cuda.stream(stream):
                images = images.to(self.device, non_blocking=True)
            if ahead is not None:
                yield self._wait_for_copy(ahead, stream)
            ahead = images, places
        if ahead is not None and stream is not None:
            yield self._wait_for_copy(ahead, stream)

    def _wait_for_copy(self, batch: tuple[Tensor, Tensor], stream: torch.cuda.Stream) -> tuple[Tensor, Tensor]:
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(stream)
        batch[0].record_stream(current)  # its memory is not reused while the computation still reads it
        return batch

    @staticmethod
    def _items(plan: EpochPlan, part: Tensor, reads: bool) -> list[Item]:
        indices = plan.order[part].tolist()
        if not reads:
            return [Item(index) for index in indices]
        boxes = plan.drawn.get("box")
        return [
            Item(index, seed, {} if boxes is None else {"box": boxes[k : k + 1]})
            for k, index, seed in zip(part.tolist(), indices, plan.seeds(part), strict=True)
        ]

    def close(self) -> None:
        self.reader.close()
