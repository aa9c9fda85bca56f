"""What a dataset's pictures of more than 8 bits mean by black and white, decided once for all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from iolaus.data.image_files import ImageFiles
from iolaus.data.split import LazyImages
from iolaus.errors import printable
from iolaus.images import PixelRules, depth_of, fill_background, from_pil, is_flat
from iolaus.settings import DatasetSettings

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLE_COUNT_DEEP = 200  # pictures of each kind that are looked at
PROBES = 16  # items of a dataset that does not know its files
INTEGER_WHITES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
TAIL_PERCENT = 0.1  # of a picture's pixels that may be dead, hot or burnt-in


@dataclass(frozen=True)
class Levels:
    """The values of one picture. low, high: all of them; inner_low, inner_high: without the tails."""

    name: str
    low: float
    high: float
    inner_low: float
    inner_high: float
    whole: bool


def pixel_rules(images: LazyImages, settings: DatasetSettings) -> tuple[PixelRules, list[str]]:
    """How all pictures of a dataset become bytes, by an even sample of training pictures; and notes for the log.

    settings.value_range is taken where it is given. Raises ValueError where floats of several ranges are mixed.
    """
    given = settings.value_range
    ranges: dict[str, tuple[float, float]] = {}
    notes, transparent = [], []
    levels: dict[str, list[Levels]] = {}
    for index, image in sample_unusual(images):
        if kind := depth_of(image):
            levels.setdefault(kind, []).append(levels_of(images.name(index), np.array(image)))
        else:
            transparent.append(image)
    for kind in ("I;16", "I", "F"):
        if given is not None:
            ranges[kind] = (given[0], given[1])
        elif kind in levels:
            ranges[kind] = decide_range(kind, levels[kind])
        if kind in levels:
            black, white = ranges[kind]
            bits = {"I;16": "16-bit pictures", "I": "32-bit pictures", "F": "pictures of floats"}[kind]
            notes.append(f"{bits}: {black:g} is black, {white:g} is white (dataset.value_range)")
    background = decide_background(transparent)
    if background == 0:
        notes.append("transparent pictures: shown on black, as most of them are white")
    return PixelRules(ranges, background, settings.exif == "apply", settings.max_pixels), notes


def sample_unusual(images: LazyImages) -> Iterator[tuple[int, "Image"]]:
    """(index, picture) of an even sample of those with more than 8 bits or transparency, where there are any."""

    def pick(indices: Sequence[int], most: int) -> Sequence[int]:
        return indices[:: -(-len(indices) // most)] if indices else []

    if isinstance(images.dataset, ImageFiles):
        unusual = set(images.dataset.unusual)
        chosen = pick([k for k, index in enumerate(images.indices) if index in unusual], SAMPLE_COUNT_DEEP)
    else:
        every = range(len(images))
        found = any(is_unusual(item) for _, item in images.readable_items(pick(every, PROBES)))
        chosen = pick(every, SAMPLE_COUNT_DEEP) if found else []
    for index, item in images.readable_items(chosen):
        if is_unusual(item):
            yield index, item


def is_unusual(item: object) -> TypeGuard["Image"]:
    """Whether a dataset's item is a PIL image with more than 8 bits or with transparency."""
    from PIL.Image import Image

    return isinstance(item, Image) and (depth_of(item) is not None or item.has_transparency_data)


def levels_of(name: str, values: np.ndarray) -> Levels:
    """The range of a picture's finite values."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Levels(name, 0.0, 0.0, 0.0, 0.0, whole=True)
    inner = np.percentile(finite, [TAIL_PERCENT, 100 - TAIL_PERCENT])
    whole = bool((finite == np.rint(finite)).all())
    return Levels(name, float(finite.min()), float(finite.max()), float(inner[0]), float(inner[1]), whole)


def decide_range(kind: str, levels: Sequence[Levels]) -> tuple[float, float]:
    """(black, white) of all pictures of a kind.

    That of their bits where they use half of it: 8, 10, 12, 14, 16 bits; for floats 0 to 1, −1 to 1 or 0 to 255. Else
    what they use, without the tails where these are most of it (one hot pixel). Raises ValueError for a mixture of
    floats up to 1 and above.
    """
    low, high = min(each.low for each in levels), max(each.high for each in levels)
    if kind == "F":
        unit = [each for each in levels if each.high <= 1 and not each.whole]
        above = [each for each in levels if each.high > 2]
        if unit and above:
            names = f"{printable(unit[0].name)}, {printable(above[0].name)}"
            raise ValueError(
                f"value_range=null: of {len(levels)} sampled pictures of floats {len(unit)} hold values up to 1 and "
                f"{len(above)} up to {high:g} ({names}); bring them to one range, or give it: [0,{high:g}]"
            )
        usual = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]
    else:
        usual = [(0.0, float(white)) for white in INTEGER_WHITES]
    inner = min(each.inner_low for each in levels), max(each.inner_high for each in levels)
    tails = inner[1] - inner[0] < (high - low) / 2 and inner[1] > inner[0]
    low, high = inner if tails else (low, high)
    fits = [(black, white) for black, white in usual if black <= low and high <= white]
    if fits and (high - low >= (fits[0][1] - fits[0][0]) / 2 or high == low):
        return fits[0]
    return low, high if high > low else low + 1


def decide_background(pictures: Sequence["Image"]) -> int:
    """The level behind transparent parts: white, unless more pictures vanish on white than on black."""
    vanish = {level: sum(is_flat(from_pil(fill_background(image, level))) for image in pictures) for level in (255, 0)}
    return 0 if vanish[255] > vanish[0] else 255
