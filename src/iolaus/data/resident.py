"""A dataset that lives on the device as uint8, and whose batches are gathered and augmented there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from iolaus.augment.crop import channels_last
from iolaus.augment.mix import Mixed
from iolaus.augment.pipeline import Augmentation, Draws
from iolaus.data.shape import ImageShape
from iolaus.seeds import MIX, ORDER, SAMPLE, seed_of

Batch = tuple[Tensor, "Tensor | Mixed"]


class Pass:
    """What a pass over the images does, drawn from `(seed, epoch)`: their order, and each one's augmentation, if any.

    order: (count,) int64; row k of `drawn` belongs to the k-th image of the epoch. For resident and streaming data
    alike, whatever the batch size.
    """

    def __init__(
        self, count: int, shape: ImageShape, augmentation: Augmentation | None, seed: int, epoch: int, shuffle: bool
    ) -> None:
        generator = torch.Generator().manual_seed(seed_of(seed, epoch, ORDER))
        self.order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
        self.augmentation, self.shape = augmentation, shape
        self.drawn: Draws = augmentation.draw(count, shape.kept_size, shape.size, generator) if augmentation else {}
        self.sample_seed, self.mix_seed = seed_of(seed, epoch, SAMPLE), seed_of(seed, epoch, MIX)

    def rows(self, part: slice | Tensor) -> Draws:
        """What was drawn for a part of the epoch."""
        return {name: values[part] for name, values in self.drawn.items()}

    def seeds(self, part: slice) -> list[int]:
        """A seed for each image of a part, for a transform of the user's."""
        return [seed_of(self.sample_seed, index, 0) for index in self.order[part].tolist()]

    def augmented(self, images: Tensor, drawn: Draws) -> Tensor:
        """The part of kept images that the model sees: augmented, else the centre."""
        if self.augmentation is None:
            return self.shape.centre(images)
        return self.augmentation.apply(images, drawn, self.shape.size)

    def finished(self, images: Tensor, targets: Tensor, drawn: Draws, batch: int) -> Batch:
        """Erase and mix normalised images; batch: its number in the epoch."""
        if self.augmentation is None:
            return images, targets
        images = self.augmentation.erase(images, drawn)
        mix = self.augmentation.mix
        return mix(images, targets, seed_of(self.mix_seed, batch, 0)) if mix else (images, targets)


def bounds(count: int, batch_size: int, drop_last: bool, start: int = 0) -> list[slice]:
    """The batches of a pass over `count` images, from number `start` on."""
    last = count - count % batch_size if drop_last else count
    return [slice(first, min(first + batch_size, last)) for first in range(start * batch_size, last, batch_size)]


class Normalise:
    """uint8 to float32, (image / 255 − mean) / std per channel, as one multiplication and one addition.

    mean, std: (1, channels, 1, 1), of pixels in [0, 1]. Keeps the memory format of the images.
    """

    def __init__(self, mean: Tensor, std: Tensor, size: int, device: torch.device) -> None:
        self.scale, self.shift = (1 / (std * 255)).to(device), (-mean / std).to(device)
        # in channels-last order a whole row of pixels at once: three values at a time take five times as long
        self.row_scale, self.row_shift = (values.view(-1).repeat(size) for values in (self.scale, self.shift))

    def __call__(self, images: Tensor) -> Tensor:
        if not channels_last(images):
            return images.float().mul_(self.scale).add_(self.shift)
        batch, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(batch, height, width * channels).float()
        return rows.mul_(self.row_scale).add_(self.row_shift).view(batch, height, width, channels).permute(0, 3, 1, 2)


class Resident:
    """Images on the device. See `iolaus.data` for the interface.

    images: (n, channels, kept_size, kept_size) uint8 on the device, contiguous or channels-last, the layout that
    batches will have; targets: (n,) int64; indices: those of them that are this split's, None for all.
    statistics: mean and std, (1, channels, 1, 1) each.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, shape: ImageShape, statistics: tuple[Tensor, Tensor], *,
        indices: Tensor | None = None, augmentation: Augmentation | None = None, seed: int = 0,
        drop_last: bool = True, shuffle: bool = True,
    ) -> None:  # fmt: skip
        self.device = images.device
        self.images, self.shape = images, shape
        self.indices = None if indices is None else indices.to(self.device)
        self.targets = (targets if indices is None else targets[indices]).to(self.device)
        self.normalise = Normalise(*statistics, shape.size, self.device)
        self.augmentation, self.seed = augmentation, seed
        self.drop_last, self.shuffle = drop_last, shuffle
        # index_select copies whole images where they lie in one piece, so it is given the order of the memory
        self.memory = images.permute(0, 2, 3, 1) if channels_last(images) else images

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, chosen: Tensor) -> Tensor:
        """A copy of some images by their numbers in this split, which are on the device."""
        chosen = chosen if self.indices is None else self.indices.index_select(0, chosen)
        taken = self.memory.index_select(0, chosen)
        return taken.permute(0, 3, 1, 2) if self.memory is not self.images else taken

    def batches(self, batch_size: int, epoch: int, train: bool, start: int = 0) -> Iterator[Batch]:
        """Training: a permutation. Evaluation: every image once, in order, and nothing random."""
        count, augmentation = len(self), self.augmentation if train else None
        epoch_pass = Pass(count, self.shape, augmentation, self.seed, epoch, shuffle=train and self.shuffle)
        order = epoch_pass.order.to(self.device)
        for number, part in enumerate(bounds(count, batch_size, train and self.drop_last, start), start):
            images, drawn = self.take(order[part]), epoch_pass.rows(part)
            if augmentation is not None and augmentation.reads:
                seeds = epoch_pass.seeds(part) if augmentation.transform is not None else []
                images = augmentation.read(images, drawn, self.shape.size, seeds)
            images = self.normalise(epoch_pass.augmented(images, drawn))
            yield epoch_pass.finished(images, self.targets.index_select(0, order[part]), drawn, number)

    def close(self) -> None:
        """Nothing to end: the images are freed with the object."""
