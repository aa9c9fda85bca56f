"""Random crop and flip of a whole batch as one copy of image rows."""

import torch
import torch.nn.functional as F
from torch import Tensor


def channels_last(images: Tensor) -> bool:
    """Whether the memory of (batch, channels, height, width) is in channels-last order and not contiguous as well."""
    return images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()


def crop_and_flip(images: Tensor, drawn: Tensor, padding: int, size: int) -> Tensor:
    """Cut a window of size × size out of each zero-padded image, and mirror some (He et al. 2015, section 4.2).

    images: (batch, channels, height, width), any dtype; drawn: (batch, 3) int64, rows of (top, left, flip) with
    top ≤ height + 2 × padding − size, left alike, flip 0 or 1: the padded image is mirrored, then the window cut.
    Returns (batch, channels, size, size) in the same dtype and memory format.

    A row of a window lies in one piece in memory, in both memory formats. So the batch and its mirror image are
    laid side by side and all rows are taken by one index_select, which copies each at once: ten times as fast here
    as to index pixels, and without a decision that depends on the data, for which a GPU would have to be waited for.
    """
    batch, channels, height, width = images.shape
    last = channels_last(images)
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
