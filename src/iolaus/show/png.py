"""Figures as PNG files."""

import functools
import io
from pathlib import Path
from typing import IO, TYPE_CHECKING

from iolaus.files.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def save_png(figure: "Figure", file: IO[bytes], dpi: int, compress_level: int) -> None:
    figure.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": compress_level})


def save_figure(figure: "Figure", path: Path, dpi: int, compress_level: int) -> None:
    """Save a figure as the PNG at `path`, which is never half there."""
    write_atomically(path, lambda file: save_png(figure, file, dpi, compress_level))


def save_drawing(figure: "Figure", path: Path, dpi: int, colours: tuple[str, ...]) -> None:
    """Save a figure of lines and text as `save_figure` does, in few shades: a third of the bytes, and of the time.

    colours: those of its lines and texts, as #rrggbb, on white.
    """
    from PIL import Image

    pixels, size = io.BytesIO(), (round(figure.get_figwidth() * dpi), round(figure.get_figheight() * dpi))
    figure.savefig(pixels, format="rgba", dpi=dpi)
    image = Image.frombytes("RGBA", size, pixels.getvalue()).convert("RGB")
    drawing = image.quantize(palette=shades_of(colours), dither=Image.Dither.NONE)
    write_atomically(path, lambda file: drawing.save(file, format="png", dpi=(dpi, dpi), compress_level=1))


@functools.cache
def shades_of(colours: tuple[str, ...]) -> "Image":
    """A palette of white, and of colours in steps of some ten levels towards it, as smooth edges have them."""
    from PIL import Image

    palette = [255] * 3  # nothing nearer to it: Pillow looks for the nearest shade of 4 × 4 × 4 levels at once
    for colour in (bytes.fromhex(name[1:]) for name in colours):
        steps = (255 - min(colour)) // 10
        palette += [255 - (255 - value) * step // steps for step in range(1, steps + 1) for value in colour]
    image = Image.new("P", (1, 1))
    image.putpalette(palette)
    return image
