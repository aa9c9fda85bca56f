"""A batch of training images as a picture: what the model sees, augmented, with its labels."""

import functools
import importlib.util
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.augment.mix import Mixed
from iolaus.errors import describe_error
from iolaus.show.tables import clean_text

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from iolaus.augment.mix import Targets
    from iolaus.data.epoch import EpochSettings, Statistics
    from iolaus.show.trackers import TrackerList

log = logging.getLogger(__name__)

MOST_IMAGES, COLUMNS = 32, 8
TILE, GAP, LINE = 128, 8, 17  # pixels: a tile is at least TILE / 2 and at most TILE wide; of a line of text
WHITE = 255
LEAST_SHARE = 0.005  # of a class in a mixed image: what two decimals show


def batch_picture(
    images: "Tensor", targets: "Targets", classes: Sequence[str], statistics: "Statistics"
) -> "np.ndarray[Any, Any]":
    """The first images of a batch in rows, each above its class, or above both classes with their shares if mixed.

    images: (batch, channels, height, width) float32, normalised by `statistics`, which is undone. Returns
    (height, width, 3) uint8. Small images are enlarged by whole factors, so that their pixels stay visible.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    from iolaus.show.drawing import INK

    mean, std = (values.to(images.device) for values in statistics)
    shown = (images[:MOST_IMAGES].float() * std + mean).mul(255).round().clamp(0, 255).byte()
    shown = shown[:, :3] if shown.shape[1] >= 3 else shown[:, :1].expand(-1, 3, -1, -1)
    labels = label_images(targets, classes, len(shown))
    pixels = shown.permute(0, 2, 3, 1).cpu().numpy()
    side = tile_side(pixels.shape[1])
    lines = max((len(label) for label in labels), default=1)
    columns, width, height = min(COLUMNS, len(pixels)), max(side, TILE), side + lines * LINE + GAP
    rows = math.ceil(len(pixels) / columns)
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), GAP + rows * (height + GAP)), (WHITE,) * 3)
    draw, font = ImageDraw.Draw(sheet), load_font()
    for place, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        left = GAP + place % columns * (width + GAP)
        top = GAP + place // columns * (height + GAP)
        way = Image.Resampling.NEAREST if side >= image.shape[0] else Image.Resampling.BILINEAR
        sheet.paste(Image.fromarray(image).resize((side, side), way), (left, top))
        for number, text in enumerate(label):
            draw.text((left, top + side + 3 + number * LINE), shorten(text, width, font), fill=INK, font=font)
    return np.asarray(sheet)


def show_batch(
    tracker: "TrackerList", images: "Tensor", targets: "Targets", settings: "EpochSettings", step: int
) -> None:
    """Give the picture of a run's first training batch to the trackers that show pictures; else it is not even drawn.

    A resumed run is past step 0, and so has shown its picture. A picture that fails is a warning.
    """
    if step == 0:
        draw = functools.partial(batch_picture, images, targets, settings.classes, settings.statistics)
        try:
            tracker.image("train/batch", draw, step)
        except Exception as error:  # no run ends for a picture
            log.warning("the first batch is not shown: %s", describe_error(error))


def tile_side(size: int) -> int:
    """Pixels of an image's side in the picture: a whole multiple of a small image's, at most TILE."""
    return max(1, TILE // size) * size if size <= TILE else TILE


def label_images(targets: "Targets", classes: Sequence[str], count: int) -> list[list[str]]:
    """The lines below each image: its class, or both classes with their shares, the larger first, none of 0.00."""
    names = [clean_text(name) for name in classes]
    if not isinstance(targets, Mixed):
        return [[names[target]] for target in targets[:count].tolist()]
    pairs = zip(targets.targets[:count].tolist(), targets.partners[:count].tolist(), strict=True)
    shares = (targets.share, 1 - targets.share)
    parts = [sorted(zip(shares, pair, strict=True), reverse=True) for pair in pairs]
    return [[f"{share:.2f} {names[target]}" for share, target in pair if share >= LEAST_SHARE] for pair in parts]


def load_font() -> Any:
    """DejaVu Sans, which comes with matplotlib and knows Latin, Greek and Cyrillic; else Pillow's own."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    path = Path(found.origin or "").parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" if found else Path()
    try:
        return ImageFont.truetype(str(path), 13)
    except OSError:
        return ImageFont.load_default()


def shorten(text: str, width: int, font: Any) -> str:
    """A text cut to so many pixels, with an ellipsis where something is missing."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def save_picture(picture: "np.ndarray[Any, Any]", path: Path) -> None:
    """Write a picture as a PNG."""
    from PIL import Image

    Image.fromarray(picture).save(path, "png")
