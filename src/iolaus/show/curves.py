"""A run's curves as one picture: loss, accuracy and learning rate by epoch."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.errors import describe_error
from iolaus.show.drawing import (
    COLOURS,
    GRID,
    INK,
    MUTED,
    Style,
    draw_line,
    new_figure,
    own_style,
    set_title,
    show_epochs,
    show_plain_numbers,
)
from iolaus.show.numbers import format_metric, metric_of
from iolaus.show.png import save_drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from iolaus.learner import Metrics

SPLITS = ("train", "val", "test")
LONGEST_TITLE = 110  # characters
log = logging.getLogger(__name__)
_thread = threading.local()


def draw_or_warn(history: "Sequence[Metrics]", path: Path, title: str, best_epoch: int, objective: str) -> None:
    """`draw_curves`, but what matplotlib can't do is a warning: a run has its results without a picture, too.

    Raises OSError for what the file system does.
    """
    try:
        draw_curves(history, path, title, best_epoch, objective)
    except OSError:
        raise
    except Exception as error:
        log.warning("%s can't be drawn: %s", path.name, describe_error(error))


@own_style()
def draw_curves(
    history: "Sequence[Metrics]",
    path: Path,
    title: str = "",
    best_epoch: int | None = None,
    objective: str = "val/accuracy",
) -> None:
    """Draw losses, accuracies (in percent) and learning rates by epoch into the PNG at `path`.

    history: the metrics of each epoch, with "epoch" counted from 0, "train/loss", "val/accuracy" (fractions), "lr",
    "lr/1" and so on; a line skips the epochs that lack its metric. The picture counts epochs from 1.
    best_epoch: counted from 0; marked by a vertical line with its validation values above it, and with the objective
    by which it is the best where that is another metric.
    The file is replaced atomically. Raises ValueError if `history` is empty.
    """
    if not history:
        raise ValueError("There are no curves to draw: the history holds no epoch")
    figure = _empty_figure()
    title = title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 1] + "…"
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold", color=INK, parse_math=False)
    loss_axes, accuracy_axes, lr_axes = figure.axes
    for axes in figure.axes:
        show_epochs(axes, int(history[0]["epoch"]) + 1, int(history[-1]["epoch"]) + 1)

    for axes, name in ((loss_axes, "loss"), (accuracy_axes, "accuracy")):
        for split, colour in zip(SPLITS, COLOURS, strict=False):
            _draw_metric(axes, history, f"{split}/{name}", split, colour)
        if best_epoch is not None:
            _mark_best(axes, history, f"val/{name}", best_epoch, objective)
        _add_legend(axes)

    groups = [key for key in dict.fromkeys(key for epoch in history for key in epoch) if f"{key}/".startswith("lr/")]
    for index, key in enumerate(groups):
        label = key.removeprefix("lr/")  # short: four of them stand beside the title
        _draw_metric(lr_axes, history, key, label, COLOURS[(index + 2) % len(COLOURS)])
    if 1 < len(groups) <= 4:
        _add_legend(lr_axes)
    rates = [value for key in groups for _, value in _points(history, key) if value > 0]
    # a rate that falls in steps of a tenth needs a log scale; one that glides towards zero (cosine) must have none
    in_steps = len(set(rates)) <= len(rates) / 2
    if rates and in_steps and max(rates) > 50 * min(rates):
        lr_axes.set_yscale("log")
    elif rates:
        lr_axes.set_ylim(bottom=0)

    for axes in (loss_axes, lr_axes):
        if axes.get_yscale() == "linear" and not 1e-3 <= max(map(abs, axes.get_ylim())) < 1e5:
            show_plain_numbers(axes.yaxis)  # in place of a factor above the axis, where the best epoch is told
    _keep_percent(accuracy_axes)

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_drawing(figure, path, dpi=110, colours=(INK, MUTED, GRID, *COLOURS))


def _empty_figure() -> "Figure":
    """Three axes without curves. Each thread reuses one figure: a new one costs each run of a sweep 0.05 s."""
    from matplotlib.ticker import ScalarFormatter

    if not hasattr(_thread, "figure"):
        _thread.figure = _new_figure()
    figure: Figure = _thread.figure
    for axes in figure.axes:
        for artist in (*axes.lines, *axes.texts, axes.get_legend()):
            if artist is not None:
                artist.remove()
        axes.relim()
        if axes.get_yscale() != "linear":
            axes.set_yscale("linear")
        if axes is not figure.axes[1]:
            axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        axes.locator_params(axis="y", nbins=6)
        axes.autoscale(axis="y")
    return figure


def _new_figure() -> "Figure":
    from matplotlib.ticker import FuncFormatter

    figure = new_figure((13, 4), (1, 3))
    # by hand: a layout engine draws everything twice, which would cost each run of a sweep 0.1 s
    figure.subplots_adjust(left=0.05, right=0.985, bottom=0.13, top=0.78, wspace=0.2)
    for axes, name in zip(figure.axes, ("loss", "accuracy", "learning rate"), strict=True):
        set_title(axes, name, pad=20)  # which leaves a row for the best epoch's value
        axes.grid(axis="x", visible=False)
        axes.xaxis.set_label_coords(0.5, -0.09)
        axes.yaxis.set_label_coords(0, 0)
    figure.axes[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g} %"))
    return figure


def _points(history: "Sequence[Metrics]", key: str) -> list[tuple[float, float]]:
    """(epoch counted from 1, value) of the epochs that have that metric."""
    return [(epoch["epoch"] + 1, epoch[key]) for epoch in history if epoch.get(key) is not None]


def _draw_metric(axes: "Axes", history: "Sequence[Metrics]", key: str, label: str, colour: str) -> None:
    points, scale = _points(history, key), 100 if key.endswith("accuracy") else 1
    scaled = [(epoch, scale * value) for epoch, value in points]
    draw_line(axes, scaled, Style(colour), label=label, markersize=4.5, linewidth=1.6)


def _keep_percent(axes: "Axes") -> None:
    """Let an axis of percent span two points or more, and little beside 0 to 100."""
    low, high = axes.get_ylim()
    span = max(2.0, high - low)
    low, high = (low + high - span) / 2, (low + high + span) / 2
    room = 0.03 * span  # for a line at 0 or 100
    shift = max(0.0, -room - low)
    high = min(100 + room, high + shift)
    axes.set_ylim(min(max(low, -room), high - 2), high)


def _mark_best(axes: "Axes", history: "Sequence[Metrics]", key: str, best_epoch: int, objective: str) -> None:
    """Mark the best epoch by a thin line; its value stands above the axes, where no curve runs."""
    epoch = best_epoch + 1
    axes.axvline(epoch, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    by = "" if key == objective else f" by {metric_of(objective).word}"
    label, value = f"best{by}: epoch {epoch}", dict(_points(history, key)).get(epoch)
    if value is not None:
        label += f", {format_metric(key, value)}"
    left, right = axes.get_xlim()
    place = (epoch - left) / (right - left)
    align = "left" if place < 0.25 else "right" if place > 0.75 else "center"
    above: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points", "ha": align}
    axes.annotate(label, (epoch, 1.0), xycoords=axes.get_xaxis_transform(), **above, fontsize=9, color=MUTED)


def _add_legend(axes: "Axes") -> None:
    """Add a legend above the axes at the right, beside the title, where it covers no line."""
    if axes.get_legend_handles_labels()[0]:
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.068), "borderaxespad": 0}
        axes.legend(**place, ncols=5, frameon=False, fontsize=9, labelcolor=INK, handlelength=1.4, columnspacing=1.2)
