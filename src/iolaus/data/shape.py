"""Bring images to the channels and size that a model takes: the initial, deterministic step, once per image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# ITU-R BT.601 luma, which PIL's convert("L") uses as well
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ImageShape:
    """What images are brought to before training.

    size: pixels of the square that a model takes: a random window of the kept one in training, its centre in
    evaluation. kept_size: pixels of the square that is kept, `size` or more. interpolation: bilinear or bicubic.
    initial: a function of the user's, applied first: (channels, height, width) uint8 to uint8 or floats in [0, 1]
    of any height and width.
    """

    channels: int
    size: int
    kept_size: int
    interpolation: str = "bilinear"
    initial: Callable[[Tensor], Tensor] | None = None

    def bring(self, images: Tensor, resize: bool = True) -> Tensor:
        """images: (batch, 1 or 3, height, width) uint8. Returns (batch, channels, kept_size, kept_size) uint8.

        resize: False keeps height and width, for a random crop of the whole photograph.
        """
        size = self.kept_size if resize else None
        if self.initial is None:
            return to_shape(images, self.channels, size, self.interpolation)
        made = [as_uint8(self.initial(image)).unsqueeze(0) for image in images]
        return torch.cat([to_shape(image, self.channels, size, self.interpolation) for image in made])

    def centre(self, images: Tensor) -> Tensor:
        """The part of kept images that evaluation looks at."""
        first = (images.shape[-1] - self.size) // 2
        return images if first == 0 else images[..., first : first + self.size, first : first + self.size]


def to_shape(images: Tensor, channels: int, size: int | None, interpolation: str = "bilinear") -> Tensor:
    """Bring a batch to (batch, channels, size, size), or only to its channels where size is None.

    images: (batch, 1 or 3, height, width) uint8. Grey becomes RGB by repetition, RGB grey by its luma. An image
    that is less than a third too small is padded with zeros (28 to 32 for MNIST, as LeNet did); any other has its
    shorter side resized (antialiased) and its centre cropped, as torchvision does. Returns uint8.
    """
    if images.shape[1] != channels:
        if channels == 3:
            images = images.expand(-1, 3, -1, -1)
        else:
            weights = torch.tensor(LUMA).view(1, 3, 1, 1)
            images = (images * weights).sum(dim=1, keepdim=True).round().to(torch.uint8)
    height, width = images.shape[-2:]
    if size is None or height == width == size:
        return images
    if height == width and 0.75 * size <= height < size:
        before = (size - height) // 2
        return F.pad(images, (before, size - height - before) * 2)
    shorter = min(height, width)
    shape = [size * height // shorter, size * width // shorter]
    resized = F.interpolate(images.float(), size=shape, mode=interpolation, antialias=True)
    top, left = (round((length - size) / 2) for length in shape)
    return resized[..., top : top + size, left : left + size].round().clamp(0, 255).to(torch.uint8)


def as_uint8(image: Tensor) -> Tensor:
    """Floats in [0, 1], torchvision's convention, as levels of 0 to 255; uint8 as it is."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8) if image.is_floating_point() else image


def from_pil(image: Any) -> Tensor:
    """A PIL image as (1, channels, height, width) uint8: one channel for grey modes, three for all others.

    Of 16 bits (the modes I;16 and I) the range is brought to 8; floats (F) in [0, 1] to 0 to 255; an alpha channel
    is dropped.
    """
    if image.mode.startswith("I"):  # convert("L") would clip at 255
        values = np.rint(np.clip(np.array(image), 0, 65535) / 257).astype(np.uint8)
    elif image.mode == "F":
        values = np.array(image)
        values = np.rint(np.clip(values * 255 if values.max() <= 1 else values, 0, 255)).astype(np.uint8)
    else:
        values = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    pixels = torch.from_numpy(values)
    return pixels.view(1, *image.size[::-1], -1).permute(0, 3, 1, 2)


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pixels in [0, 1]; images: (n, channels, height, width) uint8."""
    count = images.shape[0] * images.shape[2] * images.shape[3]
    chunks = images.split(100)
    mean = torch.stack([chunk.double().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(dim=0) / count
    squares = torch.stack([chunk.double().square().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(dim=0)
    std = (squares / count - mean.square()).clamp(min=1.0).sqrt()  # a constant channel is not divided by 0
    return (mean / 255).tolist(), (std / 255).tolist()
