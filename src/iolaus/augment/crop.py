"""Random crop and flip of a whole batch as one copy of image rows."""

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
    rows = torch.arange(size, device=images.device) * (width * pixel)
    if not last:
        planes = torch.arange(channels, device=images.device) * (height * width)
        rows = (planes[:, None] + rows).view(-1)
    top, left, flip = drawn.unbind(dim=1)
    image = flip * batch + torch.arange(batch, device=images.device)
    corner = image * (channels * height * width) + top * (width * pixel) + left * pixel
    flat = both.permute(0, 2, 3, 1).reshape(-1) if last else both.reshape(-1)
    windows = flat.as_strided((flat.numel() - size * pixel + 1, size * pixel), (1, 1))
    taken = windows.index_select(0, (corner[:, None] + rows).view(-1))
    return taken.view(batch, size, size, channels).permute(0, 3, 1, 2) if last else taken.view(batch, -1, size, size)


def pad(images: Tensor, padding: int, mode: PaddingMode) -> Tensor:
    """Add a border of `padding` pixels to images: (batch, channels, height, width), of any dtype and memory format.

    mode: `zeros`, or `reflect`: the border mirrors the image about its outermost pixels, which are not repeated. That
    is torch's F.pad(mode="reflect"), which does not take uint8. It needs `padding` below height and width.
    """
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
