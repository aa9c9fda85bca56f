"""TrivialAugmentWide and RandAugment on whole batches: each image draws its op and magnitude.

The ops, their ranges and their results equal those of `torchvision.transforms.v2` on uint8 images, with
nearest-neighbour interpolation and a black fill.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from iolaus.augment.color import luma

OPS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
GEOMETRIC = OPS[1:6]
SIGNED = OPS[1:10]


def draw_trivial_augment(count: int, generator: torch.Generator, bins: int = 31) -> dict[str, Tensor]:
    """Draw TrivialAugmentWide (Müller & Hutter 2021) for `count` images: one op each, its magnitude in any of `bins`.

    Returns `op` (count, 1) int64, an index into OPS, and `magnitude` (count, 1) float32, both on the CPU. Magnitudes
    are: slope (shear), pixels (translation), degrees counter-clockwise (rotation), factor − 1 (brightness, color,
    contrast, sharpness), number of bits that stay (posterize), lowest level that is inverted (solarize). All but the
    last two have a random sign. Raises ValueError for fewer than two bins.
    """
    table = _magnitudes(bins, shear=0.99, across=32.0, down=32.0, rotation=135.0, blend=0.99, bits_lost=6)
    op = torch.randint(len(OPS), (count, 1), generator=generator)
    return _flip_signs(op, table[op, torch.randint(bins, (count, 1), generator=generator)], generator)


def draw_rand_augment(
    count: int,
    image_size: tuple[int, int],
    generator: torch.Generator,
    num_ops: int = 2,
    magnitude: int = 9,
    bins: int = 31,
) -> dict[str, Tensor]:
    """Draw RandAugment (Cubuk et al. 2019) for `count` images: `num_ops` ops each, all of bin `magnitude` of `bins`.

    image_size: (height, width) in pixels; translations are fractions of it.
    Returns `op` and `magnitude` as `draw_trivial_augment` does, (count, num_ops) each, in the order of application.
    Raises ValueError for a negative num_ops, fewer than two bins, or a magnitude outside [0, bins − 1].
    """
    if num_ops < 0:
        raise ValueError(f"num_ops={num_ops}: must be 0 or more")
    height, width = image_size
    across, down = 150 / 331 * width, 150 / 331 * height
    table = _magnitudes(bins, shear=0.3, across=across, down=down, rotation=30.0, blend=0.9, bits_lost=4)
    if not 0 <= magnitude < bins:
        raise ValueError(f"magnitude={magnitude}: must be 0 to {bins - 1}, one of bins={bins}")
    op = torch.randint(len(OPS), (count, num_ops), generator=generator)
    return _flip_signs(op, table[op, magnitude], generator)


def _magnitudes(
    bins: int, shear: float, across: float, down: float, rotation: float, blend: float, bits_lost: int
) -> Tensor:
    """The magnitude of each op in each bin, (ops, bins) float32; 0 for ops without a magnitude."""
    if bins < 2:
        raise ValueError(f"bins={bins}: must be 2 or more")
    table = torch.zeros(len(OPS), bins)
    highest = {"ShearX": shear, "ShearY": shear, "TranslateX": across, "TranslateY": down, "Rotate": rotation}
    highest |= dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), blend)
    for name, value in highest.items():
        table[OPS.index(name)] = torch.linspace(0.0, value, bins)
    translations = [OPS.index("TranslateX"), OPS.index("TranslateY")]
    table[translations] = table[translations].trunc()
    table[OPS.index("Posterize")] = (8 - torch.arange(bins) / ((bins - 1) / bits_lost)).round()
    table[OPS.index("Solarize")] = torch.linspace(1.0, 0.0, bins) * 255
    return table


def _flip_signs(op: Tensor, magnitude: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    signed = torch.tensor([name in SIGNED for name in OPS])[op]
    negative = torch.randint(2, op.shape, generator=generator).bool()
    return {"op": op, "magnitude": torch.where(signed & negative, -magnitude, magnitude)}


def apply_ops(images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
    """Apply to each image the ops drawn for it, one after the other.

    images: (batch, channels, height, width) uint8, channels 1 or 3; drawn: rows of `draw_trivial_augment` or
    `draw_rand_augment`, on the CPU. Returns images of the same shape, dtype and memory format.
    """
    planes = images.contiguous()
    for op, magnitude in zip(drawn["op"].unbind(dim=1), drawn["magnitude"].unbind(dim=1), strict=True):
        planes = _apply_round(planes, op, magnitude)
    return torch.empty_like(images).copy_(planes)


def _apply_round(images: Tensor, op: Tensor, magnitude: Tensor) -> Tensor:
    # Sorted by op, the images of each op are a slice: two gathers move the batch there and back.
    op, order = op.sort(stable=True)
    magnitude = magnitude[order]
    ends = torch.bincount(op, minlength=len(OPS)).cumsum(0).tolist()
    slices = {name: slice(start, end) for name, start, end in zip(OPS, [0, *ends], ends, strict=False)}
    moved = slice(slices["ShearX"].start, slices["Rotate"].stop)
    matrices = _inverse_matrices(op[moved], magnitude[moved], *images.shape[2:])
    magnitude = magnitude[:, None, None, None].to(images.device, non_blocking=True)

    by_op = images.index_select(0, order.to(images.device, non_blocking=True))
    if len(matrices):
        by_op[moved] = affine_nearest(by_op[moved], matrices)
    for name, function in VALUE_OPS.items():
        part = slices[name]
        if part.start < part.stop:
            by_op[part] = function(by_op[part], magnitude[part])
    return by_op.index_select(0, order.argsort().to(images.device, non_blocking=True))


def _inverse_matrices(op: Tensor, magnitude: Tensor, height: int, width: int) -> Tensor:
    """The source coordinates of each pixel of the moved image: (batch, 2, 3) float32, rows of x and y, on the CPU.

    Coordinates are in pixels from the image's centre, x to the right and y down. Shears leave the top (ShearX) or
    left (ShearY) edge where it is.
    """
    magnitude = magnitude.double()
    shear_x, shear_y, right, down, degrees = (magnitude * (op == OPS.index(name)) for name in GEOMETRIC)
    cosine, sine = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    x = torch.stack([cosine, shear_x - sine, shear_x * height / 2 - right], dim=1)
    y = torch.stack([shear_y + sine, cosine, shear_y * width / 2 - down], dim=1)
    return torch.stack([x, y], dim=1).float()


def affine_nearest(images: Tensor, matrices: Tensor) -> Tensor:
    """Move each image by its own affine map: each pixel is the nearest one to its source, or 0 outside the image.

    images: (batch, channels, height, width) uint8, of up to 2²⁴ pixels each; matrices: (batch, 2, 3) float32, rows
    (a, b, c) of the source coordinates x' and y' = a·x + b·y + c, in pixels from the centre. Returns new images.
    """
    height, width = images.shape[2:]
    matrices = matrices.to(images.device, non_blocking=True)
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    a, b, c = matrices[..., None, None].unbind(dim=2)
    # Sums in this order, not a matrix product, which may round an image differently in another batch.
    column, row = (a * x + (b * y + c)).unbind(dim=1)
    column, row = (column + (width - 1) / 2).round_(), (row + (height - 1) / 2).round_()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = row.clamp_(0, height - 1).mul_(width).add_(column.clamp_(0, width - 1)).long()
    source = source.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, source).view_as(images).mul_(inside[:, None])


def _blend(image: Tensor, base: Tensor, magnitude: Tensor) -> Tensor:
    """Base + (1 + magnitude) × (image − base), rounded towards 0 as in torchvision."""
    return (image - base).mul_(1 + magnitude).add_(base).clamp_(0, 255).to(torch.uint8)


def _brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    return (images * (1 + magnitude)).clamp_(0, 255).to(torch.uint8)


def _color(images: Tensor, magnitude: Tensor) -> Tensor:
    return images if images.shape[1] == 1 else _blend(images, luma(images).floor_(), magnitude)


def _contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    grey = luma(images).floor_()
    # whole numbers, whose sum is exact in any order
    mean = grey.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64) / grey[0].numel()
    return _blend(images, mean, magnitude)


def _sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Blend with a 3 × 3 blur (centre 5/13, others 1/13); the border of one pixel stays as it is."""
    if min(images.shape[2:]) <= 2:
        return images
    pixels = images.float()
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = pixels[:, :, 1:-1, 1:-1]
    blurred = (box + 4 * inner).div_(13).round_()
    sharpened = images.clone()
    sharpened[:, :, 1:-1, 1:-1] = _blend(inner, blurred, magnitude)
    return sharpened


def _posterize(images: Tensor, magnitude: Tensor) -> Tensor:
    lost = (8 - magnitude).to(torch.uint8)
    return (images >> lost) << lost


def _solarize(images: Tensor, magnitude: Tensor) -> Tensor:
    return torch.where(images >= magnitude, 255 - images, images)


def _autocontrast(images: Tensor, magnitude: Tensor) -> Tensor:
    """Stretch each channel's levels to 0 … 255; a channel of one level stays as it is."""
    low, high = images.amin(dim=(2, 3), keepdim=True).float(), images.amax(dim=(2, 3), keepdim=True).float()
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1 / 255))
    return (images - torch.where(flat, 0.0, low)).div_(scale).clamp_(0, 255).to(torch.uint8)


def _equalize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Spread each channel's levels to equal counts, as Pillow's `ImageOps.equalize` does."""
    levels = images.flatten(2).long()
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels, dtype=torch.int32))
    below = counts.cumsum(2, dtype=torch.int32) - counts
    brightest = counts.gather(2, levels.amax(dim=2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    lookup = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    # fewer than 255 pixels below the brightest level: nothing to spread
    return torch.where(step > 0, lookup.gather(2, levels), levels).view_as(images).to(torch.uint8)


VALUE_OPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
