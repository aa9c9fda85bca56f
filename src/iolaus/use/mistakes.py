"""mistakes.png: the pictures that a model is most sure of, and wrong."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from iolaus.data.shape import ImageShape
from iolaus.show.drawing import COLOURS, INK, MUTED, new_figure, own_style
from iolaus.show.png import save_figure
from iolaus.use.confusion import shorten_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from iolaus.use.evaluation import Evaluation

COLUMNS, ROWS = 6, 5
TILE = 1.75  # inches


def most_confident(evaluation: "Evaluation", most: int = COLUMNS * ROWS) -> Tensor:
    """The rows of the mistakes with the highest probabilities, the highest first: (n,) int64."""
    wrong = (evaluation.preds != evaluation.targets).nonzero().flatten()
    order = evaluation.ranking.probs[wrong, 0].sort(descending=True, stable=True).indices
    return wrong[order[:most]]


@own_style()
def draw_mistakes(evaluation: "Evaluation", shape: ImageShape, path: Path) -> None:
    """Draw the most confident mistakes as the model sees them, with both classes and their files.

    Without any mistake there is no picture, and one of before is removed.
    """
    rows = most_confident(evaluation)
    if not len(rows):
        path.unlink(missing_ok=True)
        return
    lines = -(-len(rows) // COLUMNS)
    width, height = COLUMNS * TILE + 0.2, lines * (TILE + 0.62) + 0.55
    figure = new_figure((width, height), (lines, COLUMNS))
    places = {"left": 0.1 / width, "right": 1 - 0.1 / width, "bottom": 0.12 / height, "top": 1 - 1.0 / height}
    figure.subplots_adjust(**places, wspace=0.08, hspace=0.62 / (TILE - 0.12))
    wrong = int((evaluation.preds != evaluation.targets).sum())
    shown = f"the {len(rows)} most confident of them" if len(rows) < wrong else "the most confident first"
    title = f"{wrong:,} of {len(evaluation.places):,} images are taken for another class; {shown}"
    figure.suptitle(title, x=0.1 / width, y=1 - 0.1 / height, ha="left", va="top", fontsize=11, fontweight="bold")
    for axes in figure.axes:
        axes.set_axis_off()
    for axes, row in zip(figure.axes, rows.tolist(), strict=False):
        draw_tile(axes, evaluation, shape, row)
    save_figure(figure, path, dpi=120, compress_level=6)


def draw_tile(axes: "Axes", evaluation: "Evaluation", shape: ImageShape, row: int) -> None:
    """One picture; above it the class that it was taken for, its own class and its file."""
    place = int(evaluation.places[row])
    pixels = shape.centre(shape.read(evaluation.images, place))[0].permute(1, 2, 0)
    axes.imshow(pixels.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    probability = float(evaluation.ranking.probs[row, 0])
    predicted, true = (evaluation.classes[int(of[row])] for of in (evaluation.preds, evaluation.targets))
    texts = (
        (f"taken for {shorten_name(predicted, 12)}, {100 * probability:.0f} %", COLOURS[1], 8.5, 23),
        (f"is {shorten_name(true, 22)}", INK, 8.5, 12),
        (shorten_name(Path(evaluation.name(place)).name, 30), MUTED, 6.5, 3),
    )
    for text, colour, size, above in texts:
        where = {"xycoords": "axes fraction", "xytext": (0, above), "textcoords": "offset points"}
        axes.annotate(text, (0, 1), **where, fontsize=size, color=colour, parse_math=False)  # type: ignore[arg-type]
