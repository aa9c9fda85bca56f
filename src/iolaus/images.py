"""Pixels: what readers give becomes uint8 tensors, in one of two memory orders."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

# ITU-R BT.601's weights of red, green and blue, as PIL's convert("L") has them and as torchvision rounds them
PIL_LUMA = (0.299, 0.587, 0.114)
TORCHVISION_LUMA = (0.2989, 0.587, 0.114)
ORIENTATION = 0x0112  # EXIF's tag; 1 is upright, 2 to 8 are mirrored and turned
TOLERANCE = 0.5  # by which floats may leave [0, 1], as bicubic resizing does


@dataclass(frozen=True)
class PixelRules:
    """How pictures become bytes, the same way for all pictures of a dataset.

    ranges: {kind: (black, white)} for pictures of more than 8 bits (`depth_of`). background: the level, 0 to 255,
    behind what is transparent. upright: whether EXIF's orientation is applied, as viewers do. max_pixels: the largest
    picture that is read; None is Pillow's limit against decompression bombs.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    background: int = 255
    upright: bool = True
    max_pixels: int | None = None


def is_channels_last(images: Tensor) -> bool:
    """Whether the memory of (batch, channels, height, width) is in channels-last order and not contiguous as well."""
    return images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()


def as_uint8(image: Tensor) -> Tensor:
    """Scale floats in [0, 1], torchvision's convention, to levels of 0 to 255; uint8 stays as it is.

    Raises ValueError for floats far outside of [0, 1], and for other integers that are no bytes.
    """
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        if int(image.min()) < 0 or int(image.max()) > 255:
            found = f"{image.dtype} from {int(image.min())} to {int(image.max())}"
            raise ValueError(f"{found}; must be uint8, or floats from 0 to 1")
        return image.to(torch.uint8)
    low, high = float(image.min()), float(image.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # NaN, too
        raise ValueError(f"floats from {low:g} to {high:g}; must be 0 to 1, or uint8")
    return (image * 255).round().clamp(0, 255).to(torch.uint8)


def depth_of(image: "Image") -> str | None:
    """The kind of a PIL image of more than 8 bits: `I;16` or `I` (integers), or `F` (floats); None for all others."""
    mode = image.mode
    return "I;16" if mode.startswith("I;16") else mode if mode in ("I", "F") else None


def from_pil(image: "Image", rules: PixelRules = PixelRules()) -> Tensor:
    """Convert a PIL image to (1, channels, height, width) uint8: one channel for grey modes, three for all others.

    Without a range of its kind, 16-bit integers (I;16, I) are read from 0 to 65535, and floats from 0 to 1, or 255 if a
    value exceeds 1. Transparent parts show the background.
    """
    image = turn_upright(image) if rules.upright else image
    kind = depth_of(image)
    if kind is not None:
        values = np.array(image)
        known = rules.ranges.get(kind)
        black, white = known or (0, 65535 if kind != "F" else 1 if np.nanmax(values) <= 1 else 255)
        values = scale_levels(values, black, white)
    else:
        image = fill_background(image, rules.background) if image.has_transparency_data else image
        mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
        values = np.array(image if image.mode == mode else image.convert(mode))
    pixels = torch.from_numpy(values)
    return pixels.view(1, *image.size[::-1], -1).permute(0, 3, 1, 2)


def scale_levels(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Levels of 0 to 255 of values between `black` and `white`; what lies outside is clipped, NaN is black."""
    levels = (values.astype(np.float64) - black) * 255 / (white - black)
    return np.rint(np.clip(np.nan_to_num(levels, nan=0.0), 0, 255)).astype(np.uint8)


def orientation_of(image: "Image") -> int:
    """EXIF's orientation of a picture, 1 to 8; 1, upright, where it says nothing, or nothing readable."""
    try:
        with warnings.catch_warnings(action="ignore"):
            orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF raises whatever its parser raises: viewers ignore it
        return 1
    return orientation if orientation in range(2, 9) else 1


def turn_upright(image: "Image") -> "Image":
    """The picture as its EXIF orientation says that it is seen."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if orientation_of(image) > 1 else image


def fill_background(image: "Image", level: int) -> "Image":
    """A picture with transparent parts laid over an even grey, as viewers show it; opaque pictures stay as they are."""
    from PIL import Image

    filled = image.convert("RGBA")
    if filled.getchannel("A").getextrema() == (255, 255):
        return image if image.mode != "P" else filled
    canvas = Image.new("RGBA", filled.size, (level, level, level, 255))
    canvas.alpha_composite(filled)
    return canvas.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")


def is_flat(pixels: Tensor, levels: int = 2) -> bool:
    """Whether a uint8 image has next to no content: all of it within `levels` of one level."""
    return int(pixels.max()) - int(pixels.min()) <= levels
