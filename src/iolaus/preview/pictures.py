"""Pictures of the learning rate: its plan over a run, and its range test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iolaus.preview.rates import RangeTest
from iolaus.show.drawing import (
    BEST_COLOUR,
    MUTED,
    Style,
    draw_line,
    new_figure,
    own_style,
    set_margins,
    set_title,
    show_epochs,
    use_log_scale,
)
from iolaus.show.png import save_figure

MOST_POINTS = 2000  # of a line


@own_style()
def draw_rates(points: Sequence[tuple[float, float]], epochs: int, path: Path) -> None:
    """Draw the learning rate of every step over the epochs into the PNG at `path`."""
    figure = new_figure((7, 3.5))
    (axes,) = figure.axes
    set_title(axes, "learning rate")
    set_margins(figure, below=0)
    # the last point holds to the end of its step; of very many only some are drawn, the last one among them
    thinned = [*points[:: -(-len(points) // MOST_POINTS)], points[-1]]
    draw_line(axes, thinned, Style(), mark_points=False, linewidth=1.6)
    show_epochs(axes, 1, epochs + 1)
    axes.set_xlim(1 - 0.01 * epochs, epochs + 1 + 0.01 * epochs)
    axes.set_ylim(bottom=0)
    save_figure(figure, path, dpi=140, compress_level=3)


@own_style()
def draw_range(test: RangeTest, path: Path) -> None:
    """Draw the smoothed loss over the rates, with the suggestion marked, into the PNG at `path`."""
    figure = new_figure((7, 3.5))
    (axes,) = figure.axes
    set_title(axes, "learning-rate range test")
    set_margins(figure, below=0)
    draw_line(axes, list(zip(test.rates, test.losses, strict=True)), Style(), mark_points=False, linewidth=1.6)
    use_log_scale(axes.xaxis)
    for rate, colour, word in ((test.lowest, MUTED, "lowest loss"), (test.suggestion, BEST_COLOUR, "suggestion")):
        axes.axvline(rate, color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
        above: dict[str, Any] = {
            "xytext": (-4, -4),
            "textcoords": "offset points",
            "ha": "right",
            "va": "top",
            "rotation": 90,
        }
        axes.annotate(
            f"{word} {rate:.2g}", (rate, 1.0), xycoords=axes.get_xaxis_transform(), color=colour, fontsize=9, **above
        )
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, smoothed")
    save_figure(figure, path, dpi=140, compress_level=3)
