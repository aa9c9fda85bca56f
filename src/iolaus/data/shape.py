"""Bring images to the channels and size that a model takes: the deterministic step, done once per image."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# ITU-R BT.601 luma, which PIL's convert("L") uses as well
LUMA = (0.299, 0.587, 0.114)


def to_shape(images: Tensor, channels: int, size: int) -> Tensor:
    """Bring a batch to (batch, channels, size, size).

    images: (batch, 1 or 3, height, width) uint8. Grey becomes RGB by repetition, RGB grey by its luma. An image
    that is less than a third too small is padded with zeros (28 to 32 for MNIST, as LeNet did); any other has its
    shorter side resized (bilinear, antialiased) and its centre cropped, as torchvision does. Returns uint8.
    """
    if images.shape[1] != channels:
        if channels == 3:
            images = images.expand(-1, 3, -1, -1)
        else:
            weights = torch.tensor(LUMA).view(1, 3, 1, 1)
            images = (images * weights).sum(dim=1, keepdim=True).round().to(torch.uint8)
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    if height == width and 0.75 * size <= height < size:
        before = (size - height) // 2
        return F.pad(images, (before, size - height - before) * 2)
    shorter = min(height, width)
    shape = [size * height // shorter, size * width // shorter]
    resized = F.interpolate(images.float(), size=shape, mode="bilinear", antialias=True)
    top, left = (round((length - size) / 2) for length in shape)
    return resized[..., top : top + size, left : left + size].round().clamp(0, 255).to(torch.uint8)


def from_pil(image: Any) -> Tensor:
    """A PIL image as (1, channels, height, width) uint8: one channel for grey modes, three for all others.

    Of 16 bits (the modes I;16 and I) the range is brought to 8; an alpha channel is dropped.
    """
    if image.mode.startswith("I"):  # convert("L") would clip at 255
        values = np.rint(np.clip(np.array(image), 0, 65535) / 257).astype(np.uint8)
    else:
        values = np.array(image.convert("L" if image.mode in ("1", "L", "LA", "F") else "RGB"))
    pixels = torch.from_numpy(values)
    return pixels.view(1, *image.size[::-1], -1).permute(0, 3, 1, 2)


def channel_statistics(images: Any, channels: int, size: int, most: int = 2000) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pixels in [0, 1], of at most `most` evenly spaced images.

    images: (n, channels, height, width) uint8, or photos that are read one by one: of both the same ones are taken,
    so that the numbers don't depend on where the images live.
    """
    step = -(-len(images) // most)
    if isinstance(images, Tensor):
        chunks = [to_shape(chunk, channels, size) for chunk in images[::step].split(1000)]
    else:
        chunks = [to_shape(images[i], channels, size) for i in range(0, len(images), step)]
    count = sum(chunk.shape[0] for chunk in chunks) * size * size
    total = torch.stack([chunk.double().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(dim=0)
    squares = torch.stack([chunk.double().square().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(dim=0)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=1.0).sqrt()  # a constant channel is not divided by 0
    return (mean / 255).tolist(), (std / 255).tolist()
