"""A run's curves as one picture: loss, accuracy and learning rate by epoch."""

import threading
from pathlib import Path
from typing import Any

from iolaus.checkpoint import write_atomically

SPLITS = ("train", "val", "test")
# Okabe and Ito's palette, told apart by colour-blind readers (https://jfly.uni-koeln.de/color/)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#666666"
MARKERS_UP_TO = 12  # epochs; beyond, markers only hide the line
_of_thread = threading.local()


def draw_curves(history: list[dict[str, Any]], path: Path, title: str = "", best_epoch: int | None = None) -> None:
    """Draws losses, accuracies (in percent) and learning rates by epoch into the PNG at `path`.

    history: a dict an epoch, with "epoch" counted from 0, "train/loss", "val/accuracy" (fractions), "lr",
    "lr/1" and so on; what an epoch lacks is left out of its line. The picture counts epochs from 1.
    best_epoch: counted from 0; marked by a line, with the validation values there written above it.
    The file is replaced atomically. Raises ValueError if `history` is empty.
    """
    if not history:
        raise ValueError("There are no curves to draw: the history holds no epoch")
    figure = _empty_figure()
    figure._suptitle.set_text(title)
    loss_axes, accuracy_axes, lr_axes = figure.axes

    for axes, name, scale in ((loss_axes, "loss", 1.0), (accuracy_axes, "accuracy", 100.0)):
        _span(axes, history)
        for split, colour in zip(SPLITS, COLOURS, strict=False):
            _line(axes, history, f"{split}/{name}", split, colour, scale)
        if best_epoch is not None:
            _mark_best(axes, history, name, best_epoch)
        _legend(axes)

    _span(lr_axes, history)
    groups = [key for key in _keys(history) if key == "lr" or key.startswith("lr/")]
    for index, key in enumerate(groups):
        _line(lr_axes, history, key, key, COLOURS[(index + 2) % len(COLOURS)])
    if 1 < len(groups) <= 5:
        _legend(lr_axes)
    rates = [value for key in groups for _, value in _points(history, key) if value > 0]
    # a rate that falls in steps of a tenth needs a log scale; one that glides towards zero (cosine) must have none
    in_steps = len(set(rates)) <= len(rates) / 2
    if rates and in_steps and max(rates) > 50 * min(rates):
        lr_axes.set_yscale("log")
    elif rates:
        lr_axes.set_ylim(bottom=0)

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110, pil_kwargs={"compress_level": 1}))


def _keys(history: list[dict[str, Any]]) -> list[str]:
    """All keys, in the order in which they first appear."""
    return list(dict.fromkeys(key for entry in history for key in entry))


def _points(history: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """(epoch counted from 1, value) wherever an epoch has that key."""
    return [(entry["epoch"] + 1, entry[key]) for entry in history if entry.get(key) is not None]


def _empty_figure() -> Any:
    """Three axes without curves. Each thread has one and uses it again: a new one costs a sweep's run 0.05 s."""
    if not hasattr(_of_thread, "figure"):
        _of_thread.figure = _new_figure()
    for axes in _of_thread.figure.axes:
        for artist in (*axes.lines, *axes.texts, axes.get_legend()):
            if artist is not None:
                artist.remove()
        axes.relim()
        if axes.get_yscale() != "linear":
            axes.set_yscale("linear")
        axes.autoscale(axis="y")
    return _of_thread.figure


def _new_figure() -> Any:
    # imported here: half a second that the start of a run does not owe
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    # Figure with its own canvas, without pyplot: no window, nothing global
    figure = Figure(figsize=(13, 4))
    FigureCanvasAgg(figure)
    # by hand: a layout engine draws everything twice, 0.1 s that each run of a sweep would pay
    figure.subplots_adjust(left=0.05, right=0.985, bottom=0.13, top=0.78, wspace=0.2)
    figure.suptitle("", x=0.012, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    for axes, name in zip(figure.subplots(1, 3), ("loss", "accuracy", "learning rate"), strict=True):
        # the padding leaves a row between title and axes to the best epoch's value; without y its place is searched
        axes.set_title(name, loc="left", fontsize=11, y=1.0, pad=20)
        axes.set_xlabel("epoch", color=GREY)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#bbbbbb")
        axes.tick_params(colors=GREY, labelsize=9)
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(decimals=None))
    return figure


def _span(axes: Any, history: list[dict[str, Any]]) -> None:
    """From the first epoch to the last; there is no epoch 0."""
    first, last = history[0]["epoch"] + 1, history[-1]["epoch"] + 1
    margin = max(0.02 * (last - first), 0.3)
    axes.set_xlim(first - min(margin, 0.5), last + margin)


def _line(axes: Any, history: list[dict[str, Any]], key: str, label: str, colour: str, scale: float = 1.0) -> None:
    points = _points(history, key)
    if points:
        epochs, values = zip(*points, strict=True)
        marker = "o" if len(points) <= MARKERS_UP_TO else None
        scaled = [scale * value for value in values]
        axes.plot(epochs, scaled, color=colour, label=label, marker=marker, markersize=4.5, linewidth=1.6)


def _mark_best(axes: Any, history: list[dict[str, Any]], name: str, best_epoch: int) -> None:
    """A thin line at the best epoch; its validation value stands above the axes, where no curve runs."""
    value = dict(_points(history, f"val/{name}")).get(best_epoch + 1)
    axes.axvline(best_epoch + 1, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    label = f"best: epoch {best_epoch + 1}"
    if value is not None:
        label += f", {100 * value:.2f} %" if name == "accuracy" else f", {value:.4g}"
    left, right = axes.get_xlim()
    place = (best_epoch + 1 - left) / (right - left)
    align = "left" if place < 0.25 else "right" if place > 0.75 else "center"
    axes.annotate(
        label,
        (best_epoch + 1, 1.0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        ha=align,
        fontsize=9,
        color=GREY,
    )


def _legend(axes: Any) -> None:
    """Above the axes at the right, beside the title: it covers no line."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 1.068),
            ncols=5,
            frameon=False,
            fontsize=9,
            handlelength=1.4,
            columnspacing=1.2,
            borderaxespad=0,
        )
