"""Random crop and flip of a whole batch as one copy of image rows."""

import torch
import torch.nn.functional as F
from torch import Tensor

from iolaus.images import is_channels_last


def crop_and_flip(images: Tensor, drawn: Tensor, padding: int, size: int) -> Tensor:
    """Cut a window of size × size out of each zero-padded image, and mirror some (He et al. 2015, section 4.2).

    images: (batch, channels, height, width), any dtype; drawn: (batch, 3) int64, rows of (top, left, flip) with
    top ≤ height + 2 × padding − size, left alike, flip 0 or 1: the padded image is mirrored, then the window cut.
    Returns (batch, channels, size, size) in the same dtype and memory format.

    A row of a window is contiguous in both memory formats. So one index_select copies all rows from the batch and its
    mirror image, side by side: ten times as fast as indexing pixels, and nothing depends on the data, which would wait
    for a GPU.
    """
    batch, channels, height, width = images.shape
    last = is_channels_last(images)
    padded = F.pad(images, (padding,) * 4)
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
