"""Random crop and flip of a whole batch as one copy of image rows."""

import functools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from iolaus.images import is_channels_last

PaddingMode = Literal["zeros", "reflect"]


def crop_and_flip(images: Tensor, drawn: Tensor, padding: int, size: int, mode: PaddingMode = "zeros") -> Tensor:
    """Cut a window of size × size out of each padded image, and mirror some (He et al. 2015, section 4.2).

    images: (batch, channels, height, width), any dtype; drawn: (batch, 3) int64, rows of (top, left, flip) with
    top ≤ height + 2 × padding − size, left alike, flip 0 or 1: the padded image is mirrored, then the window cut.
    mode: of the padding, see `pad`.
    Returns (batch, channels, size, size) in the same dtype and memory format.

    A row of a window is contiguous in both memory formats. So one index_select copies all rows from the batch and its
    mirror image, side by side: ten times as fast as indexing pixels, and nothing depends on the data, which would wait
    for a GPU.
    """
    batch, channels, height, width = images.shape
    last = is_channels_last(images)
    padded = pad(images, padding, mode)
    both = torch.cat([padded, padded.flip(3)])
    height, width = height + 2 * padding, width + 2 * padding

    pixel = channels if last else 1  # elements from a pixel to its right neighbour
    steps, rows = first_places(batch, channels, height, width, size, last, images.device)
    places = rows + (drawn * steps).sum(dim=1, keepdim=True)
    flat = both.permute(0, 2, 3, 1).reshape(-1) if last else both.reshape(-1)
    windows = flat.as_strided((flat.numel() - size * pixel + 1, size * pixel), (1, 1))
    taken = windows.index_select(0, places.view(-1))
    return taken.view(batch, size, size, channels).permute(0, 3, 1, 2) if last else taken.view(batch, -1, size, size)


@functools.lru_cache(maxsize=4)
def first_places(
    batch: int, channels: int, height: int, width: int, size: int, last: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where the rows of windows begin in the memory of padded images and their mirror images, as int64 elements.

    height, width: of the padded images; last: whether channels are last in memory. Returns (3,), the steps of top, left
    and flip, and (batch, rows), the places of the windows at the top left. Both are the same for every batch, and a GPU
    launches a kernel for each sum: so they are kept.
    """
    pixel, whole = channels if last else 1, channels * height * width
    rows = torch.arange(size) * (width * pixel)
    if not last:
        rows = (torch.arange(channels)[:, None] * (height * width) + rows).view(-1)
    steps = torch.tensor([width * pixel, pixel, batch * whole])
    return steps.to(device), (torch.arange(batch)[:, None] * whole + rows).to(device)


def pad(images: Tensor, padding: int, mode: PaddingMode) -> Tensor:
    """Add a border of `padding` pixels to images: (batch, channels, height, width), of any dtype and memory format.

    mode: `zeros`, or `reflect`: the border mirrors the image about its outermost pixels, which are not repeated. That
    is torch's F.pad(mode="reflect"), which does not take uint8. It needs `padding` below height and width.
    """
    if padding == 0:  # of which F.pad would make a copy
        return images
    padded = F.pad(images, (padding,) * 4)
    if mode == "reflect":
        for dim in (2, 3):  # the columns second, over whole rows, so that they fill the corners
            size = images.shape[dim]
            padded.narrow(dim, 0, padding).copy_(padded.narrow(dim, padding + 1, padding).flip(dim))
            padded.narrow(dim, padding + size, padding).copy_(padded.narrow(dim, size - 1, padding).flip(dim))
    return padded


def alternate_flips(count: int, probability: float, epoch: int, generator: torch.Generator) -> Tensor:
    """Which of `count` images are mirrored in an epoch: (count,) bool (Jordan 2024, arXiv 2404.00498, section 3.6).

    A coin decides for each image at epoch 0, and from there every image is mirrored in every other epoch: two epochs
    in a row show each image from both sides. generator: in the same state for all epochs.
    """
    mirrored = torch.rand(count, generator=generator) < probability
    return mirrored ^ bool(epoch % 2)
