"""One pass over the images: their order, augmentation and batches, drawn from `(seed, epoch)`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from iolaus.augment.mix import Mixed
from iolaus.augment.pipeline import Augmentation, Draws
from iolaus.data.balance import balanced_order
from iolaus.data.shape import ImageShape
from iolaus.images import is_channels_last
from iolaus.machine.ranks import ALONE, Alone
from iolaus.seeds import MIX, ORDER, SAMPLE, seed_of

Batch = tuple[Tensor, Tensor | Mixed]
Part = slice | Tensor  # places in an epoch
ON_DEVICE = ("crop", "erasing")  # draws that whole batches are augmented by; the others are read on the CPU
Statistics = tuple[Tensor, Tensor]  # mean and std of pixels in [0, 1], (1, channels, 1, 1) each


class Batches(Protocol):
    """A split in batches on the device: `Resident` or `Streaming`. Its length is the number of images.

    targets: (n,) int64, of all images in order.
    """

    targets: Tensor
    settings: "EpochSettings"

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, epoch: int, train: bool, start: int = 0, group: Alone = ALONE
    ) -> Iterator[Batch]:
        """The `(images, targets)` of an epoch, from batch number `start` on (for a run resumed within an epoch).

        group: the ranks that share each batch in training, and in evaluation take turns at whole ones; what is given
        is this rank's part.

        Training draws a permutation and the augmentation; evaluation gives every image once, in order, as it is.
        images: (batch, channels, size, size) float32, normalised; targets: (batch,) int64, or Mixed.
        """

    def close(self) -> None:
        """End the processes that read images, if there are any."""


@dataclass(frozen=True)
class EpochSettings:
    """What every epoch of a dataset has in common, resident or streaming. augmentation: of training images only.

    balanced: the targets of the training images, if every class is to be drawn as often as any other; else None.
    classes: their names, for pictures.
    """

    shape: ImageShape
    statistics: Statistics
    augmentation: Augmentation | None = None
    seed: int = 0
    drop_last: bool = True
    shuffle: bool = True
    balanced: Tensor | None = None
    classes: Sequence[str] = ()


class EpochPlan:
    """The order of an epoch's images and the augmentation of each, whatever the batch size.

    order: (count,) int64; placed: the same, on the device (see `place`). The k-th image has row k of `drawn`.
    """

    def __init__(self, settings: EpochSettings, count: int, epoch: int, train: bool, group: Alone = ALONE) -> None:
        self.shape, self.augmentation = settings.shape, settings.augmentation if train else None
        self.drop_last, seed = train and settings.drop_last, settings.seed
        self.train, self.group = train, group
        # an image is mixed with the one before it, which may be another rank's
        self.reads_one_before = bool(group.world > 1 and self.augmentation and self.augmentation.mix)
        generator = torch.Generator().manual_seed(seed_of(seed, epoch, ORDER))
        shuffle = train and settings.shuffle
        self.balanced = settings.balanced if shuffle else None
        if self.balanced is not None:
            self.order = balanced_order(self.balanced, generator)
        else:
            self.order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
        sizes = self.shape.kept_size, self.shape.size
        self.drawn: Draws = self.augmentation.draw(count, *sizes, generator) if self.augmentation else {}
        if self.augmentation is not None:
            self.augmentation.alternate(self.drawn, self.order, seed, epoch)
        self.placed = self.order
        self.sample_seed, self.mix_seed = seed_of(seed, epoch, SAMPLE), seed_of(seed, epoch, MIX)

    def place(self, device: torch.device) -> "EpochPlan":
        """Bring the order, and the draws that are used there, to the device, each in one transfer. Returns the plan."""
        if device.type != "cpu":
            pin = device.type == "cuda"  # else the transfer would wait
            here = {"order": self.order} | {name: self.drawn[name] for name in ON_DEVICE if name in self.drawn}
            there = {
                name: (values.pin_memory() if pin else values).to(device, non_blocking=True)
                for name, values in here.items()
            }
            self.placed = there.pop("order")
            self.drawn |= there
        return self

    def parts(self, batch_size: int, start: int) -> Sequence[Part]:
        """This rank's part of each batch, from batch number `start` on."""
        batches = batch_slices(len(self.order), batch_size, self.drop_last, start)
        if not self.train:
            return self.group.turns(batches)
        return [self.group.rows(batch, self.reads_one_before) for batch in batches]

    def rows(self, part: Part) -> Draws:
        """The draws for a part of the epoch."""
        return {name: values[part] for name, values in self.drawn.items()}

    def seeds(self, part: Part) -> list[int]:
        """A seed for each image of a part, for the user's transform."""
        # a balanced epoch has images that come several times, each time with another seed: that of the place
        numbers = self.order if self.balanced is None else torch.arange(len(self.order))
        return [seed_of(self.sample_seed, number, 0) for number in numbers[part].tolist()]

    def augment(self, images: Tensor, drawn: Draws) -> Tensor:
        """From kept images, uint8, to those that the model sees: augmented in training, else the centre."""
        if self.augmentation is None:
            return self.shape.centre(images)
        return self.augmentation.apply(images, drawn, self.shape.size)

    def erase_and_mix(
        self, images: Tensor, targets: Tensor, drawn: Draws, batch: int, first_read: bool = True
    ) -> Batch:
        """The augmentation that follows normalisation. batch: the batch's number in the epoch.

        first_read: whether the first image of the part could be read.
        """
        if self.augmentation is None:
            return images, targets
        images = self.augmentation.erase(images, drawn)
        mix = self.augmentation.mix
        if not mix:
            return images, targets
        images, mixed = mix(images, targets, seed_of(self.mix_seed, batch, 0))
        return (images[1:], mixed[1:]) if self.reads_one_before and first_read else (images, mixed)


def batch_slices(count: int, batch_size: int, drop_last: bool, start: int = 0) -> list[slice]:
    """The batches of a pass over `count` images, from batch number `start` on."""
    last = count - count % batch_size if drop_last else count
    return [slice(first, min(first + batch_size, last)) for first in range(start * batch_size, last, batch_size)]


class Normalise:
    """uint8 to float32, (image / 255 − mean) / std per channel, as one multiplication and one addition.

    mean, std: see `Statistics`. size: height and width of the images, in pixels. The memory order stays.
    """

    def __init__(self, mean: Tensor, std: Tensor, size: int, device: torch.device) -> None:
        self.scale, self.shift = (1 / (std * 255)).to(device), (-mean / std).to(device)
        # in channels-last order whole rows of pixels: arithmetic on three values at a time takes five times as long
        self.row_scale, self.row_shift = (values.view(-1).repeat(size) for values in (self.scale, self.shift))

    def __call__(self, images: Tensor) -> Tensor:
        if not is_channels_last(images):
            return images.float().mul_(self.scale).add_(self.shift)
        batch, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(batch, height, width * channels).float()
        return rows.mul_(self.row_scale).add_(self.row_shift).view(batch, height, width, channels).permute(0, 3, 1, 2)
