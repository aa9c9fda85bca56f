"""confusion.png: which classes are taken for which."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from iolaus.show.drawing import COLOURS, GRID, INK, MUTED, new_figure, own_style, set_title
from iolaus.show.png import save_figure
from iolaus.show.tables import clean_text

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from iolaus.use.evaluation import Evaluation

MOST_DRAWN = 100  # of a picture that can still be read; of more those with the most mistakes are shown
MOST_NUMBERS = 40  # classes up to which every cell has its count
LONGEST = 24  # characters of a class name


@own_style()
def draw_confusion(evaluation: "Evaluation", path: Path) -> None:
    """Draw the confusion matrix, a row for each true class, into the PNG at `path`.

    The colour of a cell is its share of the row: correct ones blue, mistakes orange. The number is the count of images.
    """
    counts, names = evaluation.confusion, [shorten_name(name) for name in evaluation.classes]
    chosen = choose_classes(counts)
    counts, names = counts[chosen][:, chosen], [names[k] for k in chosen.tolist()]
    count = len(names)
    cell = 0.45 if count <= 12 else 0.34 if count <= MOST_NUMBERS else 0.175
    font = 9.0 if count <= 12 else 8.0 if count <= MOST_NUMBERS else 6.5
    margin = 0.35 + 0.0085 * font * max(map(len, names))  # inches for the names of the classes
    side = max(cell * count, 2.4)
    width, height = margin + side + 0.3, margin + side + 0.6
    figure = new_figure((width, height))
    figure.subplots_adjust(left=margin / width, right=1 - 0.3 / width, bottom=margin / height, top=1 - 0.6 / height)
    axes = figure.axes[0]
    axes.imshow(colour_cells(counts), interpolation="nearest", aspect="equal")
    write_counts(axes, counts, font)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(count), names, fontsize=font, color=INK, parse_math=False)
    axes.tick_params(axis="x", rotation=90 if max(map(len, names)) > 2 or count > 20 else 0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(GRID)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy, every = evaluation.figures["accuracy"], len(evaluation.classes)
    part = f", {count} of {every} classes, those with the most mistakes" if count < every else ""
    set_title(axes, f"{len(evaluation.places):,} images, {100 * accuracy:.2f} % right{part}")
    save_figure(figure, path, dpi=140, compress_level=6)


def choose_classes(counts: Tensor) -> Tensor:
    """The classes that are drawn, in their order: all, or the MOST_DRAWN with the most mistakes."""
    if len(counts) <= MOST_DRAWN:
        return torch.arange(len(counts))
    mistakes = counts.sum(dim=0) + counts.sum(dim=1) - 2 * counts.diagonal()
    return mistakes.sort(descending=True, stable=True).indices[:MOST_DRAWN].sort().values


def colour_cells(counts: Tensor) -> "np.ndarray[Any, Any]":
    """(classes, classes, 3) colours in [0, 1]: white for none, a hit's or a mistake's colour for a whole row."""
    from matplotlib.colors import to_rgb

    shares = counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
    strength = shares.sqrt()[..., None]  # so that a few of a row's images can be seen
    right, wrong = (torch.tensor(to_rgb(colour), dtype=torch.float64) for colour in COLOURS[:2])
    diagonal = torch.eye(len(counts), dtype=torch.bool)[..., None]
    colours: np.ndarray[Any, Any] = (1 - strength * (1 - torch.where(diagonal, right, wrong))).numpy()
    return colours


def write_counts(axes: "Axes", counts: Tensor, font: float) -> None:
    """The number of images in each cell that has any; in a large matrix only in cells off the diagonal with several."""
    large, shares = len(counts) > MOST_NUMBERS, counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    for true, predicted in counts.nonzero().tolist():
        number = int(counts[true, predicted])
        if large and (true == predicted or number < 2):
            continue
        colour = "white" if shares[true, predicted] > 0.35 else INK if true == predicted or not large else MUTED
        size = min(font, font * 3.2 / len(str(number)))
        axes.text(predicted, true, str(number), ha="center", va="center", fontsize=size, color=colour)


def shorten_name(name: str, longest: int = LONGEST) -> str:
    """A name for a picture: printable, on one line, its middle left out where it is long."""
    name = clean_text(" ".join(name.split()))
    return name if len(name) <= longest else f"{name[: longest // 2]}…{name[-(longest // 2 - 1) :]}"
