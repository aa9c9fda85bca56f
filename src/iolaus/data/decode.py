"""A picture in a file becomes pixels, decoded no larger than it is needed."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from iolaus.data.listing import known_formats
from iolaus.images import PixelRules, from_pil, orientation_of

Reduction = Callable[[int, int], int]  # by how much a picture of (height, width) may be decoded smaller: 1, 2, 4 or 8
# where torchvision's datasets keep the files of their pictures, alone or before a label
KEPT_FILES = ("_images", "_image_files", "_samples", "samples")
LYING = 5  # EXIF's orientations from here on are turned by a quarter


class Whole(NamedTuple):
    """A picture's height and width, as it is shown, and by how much smaller it was decoded: 1, 2, 4 or 8."""

    height: int
    width: int
    factor: int


def file_of(dataset: object, position: int) -> str | None:
    """The file of an item of a dataset of torchvision's that only opens it, as RGB; None where it is not known."""
    if not type(dataset).__module__.startswith("torchvision.") or getattr(dataset, "transforms", None) is not None:
        return None
    files = next((getattr(dataset, name) for name in KEPT_FILES if hasattr(dataset, name)), None)
    item = files[position] if files else None
    path = item[0] if isinstance(item, tuple) else item
    return str(path) if isinstance(path, str | Path) else None


def read_file(
    path: str, rules: PixelRules, reduction: Reduction, only_rgb: bool = False
) -> tuple[Tensor, Whole] | None:
    """A picture's pixels, (1, channels, height, width) uint8, and what the whole picture is.

    JPEG files are decoded at the scale that `reduction` gives, by libjpeg's own means (Pillow's `draft`), all others as
    they are. only_rgb: None is returned for a file that is no JPEG in RGB. Raises what Pillow raises.
    """
    from PIL import Image

    with Image.open(path, formats=known_formats()) as image:
        is_jpeg, whole = image.format in ("JPEG", "MPO"), None
        if only_rgb and not (is_jpeg and image.mode == "RGB"):
            return None
        if is_jpeg:
            width, height = image.size
            turned = rules.upright and orientation_of(image) >= LYING
            shown = (width, height) if turned else (height, width)
            whole = Whole(*shown, reduction(*shown))
            if whole.factor > 1:
                image.draft(None, (width // whole.factor, height // whole.factor))
        image.load()
    pixels = from_pil(image, rules)
    return pixels, whole or ask(reduction, pixels)


def ask(reduction: Reduction, pixels: Tensor) -> Whole:
    """Tell `reduction` the size of pixels that stay as they are."""
    height, width = pixels.shape[-2:]
    reduction(height, width)
    return Whole(height, width, 1)
