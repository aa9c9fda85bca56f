"""Colour jitter of whole batches: brightness, contrast, saturation and hue, in a random order for each image.

The semantics are those of `torchvision.transforms.v2.ColorJitter` on float images.
"""

import torch
from torch import Tensor

from iolaus.images import TORCHVISION_LUMA

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def draw_color_jitter(
    count: int, brightness: float, contrast: float, saturation: float, hue: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the colour jitter of `count` images.

    brightness, contrast, saturation: strengths s ≥ 0, for factors uniform in [max(0, 1 − s), 1 + s]; hue: strength
    h in [0, 0.5], for shifts uniform in [−h, h] turns of the colour circle. An op of strength 0 is left out.
    Returns `op` (count, ops) int64, a random order of BRIGHTNESS, CONTRAST, SATURATION and HUE for each image, and
    `factor` (count, ops) float32, the factor or shift of the op in the same place; both on the CPU.
    Raises ValueError for a strength out of its range.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    for name, strength in strengths.items():
        if name != "hue" and not 0 <= strength < float("inf"):
            raise ValueError(f"{name}={strength}: must be 0 or more")
        if name == "hue" and not 0 <= strength <= 0.5:
            raise ValueError(f"{name}={strength}: must be 0 to 0.5")
    low = torch.tensor([max(0.0, 1 - brightness), max(0.0, 1 - contrast), max(0.0, 1 - saturation), -hue])
    high = torch.tensor([1 + brightness, 1 + contrast, 1 + saturation, hue])
    used = torch.tensor([op for op, strength in enumerate(strengths.values()) if strength > 0], dtype=torch.int64)
    op = used[torch.rand(count, len(used), generator=generator).argsort(dim=1)]
    place = torch.rand(count, len(used), generator=generator)
    return {"op": op, "factor": low[op] + place * (high - low)[op]}


def color_jitter(images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
    """Adjust brightness, contrast, saturation and hue of each image as drawn for it.

    images: (batch, channels, height, width) uint8, channels 1 or 3; drawn: rows of `draw_color_jitter`, on the CPU.
    Returns images of the same shape, dtype and memory format. Between the ops pixels are float32, clamped to
    [0, 255] after each; they are rounded once, at the end. Saturation and hue leave images of one channel as they are.
    """
    ops, factors = drawn["op"].unbind(dim=1), drawn["factor"].unbind(dim=1)
    grey_only = images.shape[1] == 1
    pixels = images.to(torch.float32, memory_format=torch.contiguous_format)
    for op, factor in zip(ops, factors, strict=True):
        _adjust(pixels, op, torch.where((op == HUE) | grey_only & (op == SATURATION), 1.0, factor))
        turned = (op == HUE).nonzero().squeeze(1)
        if len(turned) and not grey_only:
            shift = factor[turned].to(images.device, non_blocking=True)
            turned = turned.to(images.device, non_blocking=True)
            pixels[turned] = shift_hue(pixels.index_select(0, turned), shift)
    return torch.empty_like(images).copy_(pixels.round_())


def luma(images: Tensor) -> Tensor:
    """Grey value of each pixel: (batch, 1 or 3, height, width) to (batch, 1, height, width) float32."""
    if images.shape[1] == 1:
        return images.float()
    channels = torch.split(images, 1, dim=1)
    red, green, blue = (channel * weight for channel, weight in zip(channels, TORCHVISION_LUMA, strict=True))
    return red.add_(green).add_(blue)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of RGB images, keeping saturation and value (HSV hexcone; Smith 1978).

    images: (batch, 3, height, width) float, ≥ 0, of any scale; shift: (batch,), in turns. Returns new images.
    """
    red, green, blue = images.unbind(dim=1)
    low, high = images.amin(dim=1), images.amax(dim=1)
    spread = high - low
    from_green_or_blue = torch.where(high == green, blue - red + 2 * spread, red - green + 4 * spread)
    sector = torch.where(high == red, green - blue, from_green_or_blue) / spread.clamp(min=1e-9)
    sector = (sector + 6 * shift[:, None, None]).remainder_(6)
    # where red, green and blue lie between low and high, along the six sectors of the circle
    ramps = torch.stack([(sector - 3).abs_() - 1, 2 - (sector - 2).abs_(), 2 - (sector - 4).abs_()], dim=1)
    return ramps.clamp_(0, 1).mul_(spread.unsqueeze(1)).add_(low.unsqueeze(1))


def _adjust(pixels: Tensor, op: Tensor, factor: Tensor) -> None:
    """Interpolate, in place, from a base (factor 0) to each image (factor 1), or beyond (above 1).

    The base is black for brightness, the mean grey for contrast, the pixel's own grey for saturation.
    """
    shares = torch.stack([factor, (1 - factor) * (op == SATURATION), (1 - factor) * (op == CONTRAST)])
    of_image, of_grey, of_mean = shares[:, :, None, None, None].to(pixels.device, non_blocking=True)
    grey = luma(pixels)
    # Multiply and add are separate operations, and the mean is over whole 64ths, whose sums are exact: so neither a
    # fused multiply-add nor the order of a sum makes an image's last bit depend on its place in the batch.
    rows = (grey * 64).round_().sum(dim=3, keepdim=True)
    mean = rows.sum(dim=2, keepdim=True, dtype=torch.int64) / (64 * grey[0].numel())
    pixels.mul_(of_image).add_((grey * of_grey).add_(mean * of_mean)).clamp_(0, 255)
