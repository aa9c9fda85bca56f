"""RandomResizedCrop: a random part of each image, resized to one size (Szegedy et al. 2014, §6).

Distribution and pixels are those of torchvision.transforms.v2.RandomResizedCrop (bilinear, antialias).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TRIES = 10  # torchvision's: it gives up after as many boxes that do not fit into the image


def check_ranges(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    """Raise ValueError unless `scale` is a range of fractions and `ratio` a range of positive aspects."""
    if not 0 <= scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale={scale}: must be smallest and largest fraction of the area, 0 to 1")
    if not 0 < ratio[0] <= ratio[1] < math.inf:
        raise ValueError(f"ratio={ratio}: must be smallest and largest aspect, both positive")


def draw_boxes(
    count: int, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Draw random boxes for `count` images of any size; `boxes` converts them to pixels.

    scale: range of the area, as a fraction of the image's; ratio: range of width / height.
    Returns (count, 22) float32 on the CPU: ten areas (uniform in `scale`), ten logarithms of an aspect (uniform
    between those of `ratio`), and the box's place in the image, down and across (uniform in [0, 1)).
    Raises ValueError for an invalid range.
    """
    check_ranges(scale, ratio)
    drawn = torch.rand(count, 2 * TRIES + 2, generator=generator)
    drawn[:, :TRIES].mul_(scale[1] - scale[0]).add_(scale[0])
    drawn[:, TRIES : 2 * TRIES].mul_(math.log(ratio[1] / ratio[0])).add_(math.log(ratio[0]))
    return drawn


def sides(drawn: Tensor, area: int) -> tuple[Tensor, Tensor]:
    """The sides of the ten rectangles in each row of `draw_boxes`, for an image of `area` pixels.

    Returns (√(area × aspect), √(area / aspect)), (count, 10) float32 each, rounded to whole pixels.
    """
    areas, aspects = drawn[:, :TRIES] * area, drawn[:, TRIES : 2 * TRIES].exp()
    return (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()


def first_fit(drawn: Tensor, heights: Tensor, widths: Tensor, fits: Tensor, image: tuple[int, int]) -> Tensor:
    """Place each row's first rectangle that fits into an image of (height, width).

    drawn: rows of `draw_boxes`; heights, widths: (count, 10) float32; fits: (count, 10) bool.
    Returns (count, 4) int64 of top, left, height, width; zeros if none fits.
    """
    first = fits.byte().argmax(dim=1, keepdim=True)  # argmax gives the first of equal values
    size = torch.cat([heights.gather(1, first), widths.gather(1, first)], dim=1)
    places = torch.stack([image[k] - size[:, k] + 1 for k in range(2)], dim=1)
    # rand() has 24 bits, like float32: the product is always less than the number of places
    corner = (drawn[:, 2 * TRIES :] * places).floor()
    return torch.cat([corner, size], dim=1).long() * fits.any(dim=1, keepdim=True)


def central_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest central (top, left, height, width) whose width / height lies within `ratio`."""
    tall, wide = height, width
    if width / height < ratio[0]:
        tall = round(width / ratio[0])
    elif width / height > ratio[1]:
        wide = round(height * ratio[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def boxes(drawn: Tensor, height: int, width: int, ratio: tuple[float, float]) -> Tensor:
    """The boxes to cut from images of `height` × `width` pixels: the first of ten tries that fits, else the centre.

    drawn: (batch, 22) of `draw_boxes`; ratio: as given there, since the central box has an aspect in that range.
    Returns (batch, 4) int64 of top, left, height, width in pixels; each box lies within the image.
    """
    widths, heights = sides(drawn, height * width)
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    placed = first_fit(drawn, heights, widths, fits, (height, width))
    missing = placed[:, 2] == 0
    columns = zip(central_box(height, width, ratio), placed.unbind(dim=1), strict=True)
    return torch.stack([torch.where(missing, central, column) for central, column in columns], dim=1)


def scale_boxes(boxes: Tensor, factor: int, size: tuple[int, ...]) -> Tensor:
    """Boxes of images as those of the same images made smaller by `factor`, to `size`; no side is less than a pixel."""
    if factor == 1:
        return boxes
    most = torch.tensor([*size, *size])
    edges = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1).div(factor).round().minimum(most)
    corner = edges[:, :2].minimum(most[:2] - 1)
    return torch.cat([corner, (edges[:, 2:] - corner).clamp(min=1)], dim=1).long()


def resized_crop(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut each image's box and resize it to size × size (bilinear, antialiased).

    images: (batch, channels, height, width) uint8; boxes: (batch, 4) integer of top, left, height, width, on the
    same device. Returns (batch, channels, size, size) uint8, in the memory order of the images.
    The device alone decides between two implementations, never the batch, so that an image gives the same result in
    every batch (on a GPU up to the rounding of float32 sums). The two differ by at most 1 of 255.
    """
    # On a CPU torch's uint8 kernel, which reads only the box, is several times faster than products of floats
    return (one_by_one if images.device.type == "cpu" else by_products)(images, boxes, size)


def one_by_one(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """`resized_crop` by torch's own resize of each box; reads `boxes` on the CPU."""
    parts = [
        image[..., top : top + height, left : left + width]
        for image, (top, left, height, width) in zip(torch.split(images, 1), boxes.tolist(), strict=True)
    ]
    return torch.cat([F.interpolate(part, (size, size), mode="bilinear", antialias=True) for part in parts])


def by_products(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """`resized_crop` of all images at once: (rows' weights) @ channel @ (columns' weights)ᵀ for each channel."""
    batch, channels, height, width = images.shape
    top, left, tall, wide = boxes.unbind(dim=1)
    # With columns outermost and rows innermost, both products take one matrix per image for all channels
    x = images.float().permute(0, 3, 1, 2).reshape(batch, width * channels, height)
    x = (x @ triangle_weights(top, tall, size, height).mT).view(batch, width, channels * size)
    x = (triangle_weights(left, wide, size, width) @ x).view(batch, size, channels, size)
    last = images.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if last else torch.contiguous_format
    return x.round_().clamp_(0, 255).permute(0, 2, 3, 1).to(torch.uint8, memory_format=memory_format)


def triangle_weights(start: Tensor, length: Tensor, size: int, extent: int) -> Tensor:
    """Weights that resize pixels start … start + length − 1 of a line of `extent` pixels to `size` pixels.

    start, length: (batch,). Returns (batch, size, extent) float32, the weights of F.interpolate(antialias=True): a
    triangle around the pixel's place in the source, as wide as a step there but at least a pixel, and zero outside of
    the part; each row sums to 1.
    """
    start, length = start.float()[:, None, None], length.float()[:, None, None]
    step = length / size
    centres = start + step * (torch.arange(size, device=start.device)[:, None] + 0.5)
    pixels = torch.arange(extent, device=start.device) + 0.5
    weights = (1 - (pixels - centres).abs_() / step.clamp(min=1)).clamp_(min=0)
    weights *= (pixels > start) & (pixels < start + length)
    return weights / weights.sum(dim=-1, keepdim=True)
