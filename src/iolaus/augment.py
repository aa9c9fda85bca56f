"""Augmentation of whole batches, on the device, as functions of numbers drawn beforehand.

What happens to an image in an epoch is drawn per image from `(seed, epoch)`, on the CPU: it depends neither on
the batch size nor on the device, nor on the number of processes that read the images.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Basic:
    """Random crop from the zero-padded image and, where the dataset allows it, a random flip (He et al. 2015, §4.2).

    crop_padding: pixels on each side; null for an eighth of the image (4 at 32 × 32). flip: probability of a
    horizontal flip; used only where a mirrored image keeps its class (`dataset.mirror`).
    Raises ValueError for a negative padding or a probability outside [0, 1].
    """

    crop_padding: int | None = None
    flip: float = 0.5
    mirror: bool = True

    def __post_init__(self) -> None:
        if self.crop_padding is not None and self.crop_padding < 0:
            raise ValueError(f"crop_padding={self.crop_padding}: must be 0 or more, or null")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip={self.flip}: must be a probability, 0 to 1")

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> Tensor:
        """Draw for `count` images: (count, 3) int64 of top and left corner in the padded image, and flip (0 or 1)."""
        padding = self._padding(image_size)
        corners = torch.randint(2 * padding + 1, (count, 2), generator=generator)
        flips = torch.rand(count, 1, generator=generator) < (self.flip if self.mirror else 0.0)
        return torch.cat([corners, flips.long()], dim=1)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Crop and flip each of `images` (batch, channels, size, size) as `drawn` says; same shape and dtype."""
        return crop_and_flip(images, drawn, self._padding(images.shape[-1]))

    def _padding(self, image_size: int) -> int:
        return max(1, image_size // 8) if self.crop_padding is None else self.crop_padding


def crop_and_flip(images: Tensor, drawn: Tensor, padding: int) -> Tensor:
    """Shift and mirror each image by one gather.

    images: (batch, channels, height, width), any dtype; drawn: (batch, 3) int64, rows of (top, left, flip) with
    0 ≤ top, left ≤ 2 × padding. Returns images of the same shape, with memory in channels-last order.
    """
    batch, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left, flip = drawn.unsqueeze(-1).unbind(dim=1)
    rows = top + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(batch, width)
    columns = left + torch.where(flip.bool(), width - 1 - columns, columns)
    image = torch.arange(batch, device=images.device)
    return padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
