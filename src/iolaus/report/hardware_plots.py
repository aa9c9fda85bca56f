"""Memory, power and time of the configurations side by side: what a precision or a batch size costs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iolaus.report.configurations import Configuration, longest_minutes, mean_std, name_settings
from iolaus.report.document import Block, Gallery, Section, Text
from iolaus.report.plots import choose_styles, legend_entries
from iolaus.report.runs import Run, Study
from iolaus.show.drawing import FULL, INK, MUTED, Picture, Style, draw_line, render_picture, show_epochs
from iolaus.show.numbers import time_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 12
MOST_LETTERS = 145  # of a name above its bar: the picture's width
# name -> the label of its axis and the number of its units; a GPU's memory as torch has allocated it
QUANTITIES = {
    "hardware/ram_bytes": ("memory (RAM), GiB", 2**30),
    "hardware/device_memory_bytes": ("GPU memory, GiB", 2**30),
    "hardware/gpu_watts": ("GPU power, W", 1),
    "hardware/cpu_percent": ("CPU, %", 1),
}
COSTLY = ("precision", "batch_size", "micro_batch_size", "batch_size_schedule", "compile", "channels_last", "sam_rho")


def hardware_section(study: Study, ranking: Sequence[Configuration]) -> list[Section]:
    """Bars for each configuration, and lines by epoch; folded where nothing was varied that is about hardware."""
    names = [name for name in QUANTITIES if any(name in run.numbers for run in study.runs)]
    if "hardware/gpu_watts" in names:
        names = [name for name in names if name != "hardware/cpu_percent"]
    places = [place for place in ranking if place.values("seconds")][:MOST_BARS]
    if not names or len(places) < 2:
        return []
    pictures = [draw_bars(study, places, names)]
    lines = [name for name in names if any(len(run.points(name)) > 1 for run in study.runs)]
    blocks: list[Block] = [Gallery(pictures)]
    if lines:
        blocks.append(Gallery([draw_by_epoch(study, ranking, lines)], legend_entries(study, ranking)))
    note = "The most memory, the mean of power and load; the time of the training steps. Means over the runs of a row."
    watched = any(key.rsplit(".", 1)[-1] in COSTLY for key in study.keys)
    return [Section("Hardware", [*blocks, Text(note, "note")], folded=not watched)]


def name_quantities(names: Sequence[str]) -> str:
    """`Memory, GPU power and time`: the title of panels for these quantities and the time."""
    words = ", ".join(QUANTITIES[name][0].partition(",")[0].removesuffix(" (RAM)") for name in names)
    return f"{words[0].upper()}{words[1:]} and time"


def draw_bars(study: Study, places: Sequence[Configuration], names: Sequence[str]) -> Picture:
    """Draw one bar for each configuration, in the order of the leaderboard, and a panel for each quantity."""
    time = time_metric(longest_minutes(study.runs))
    panels = [*((name, *QUANTITIES[name]) for name in names), (time.name, time.name, 1)]
    styles = choose_styles(study, places)

    def draw(*axes_of: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        for axes, (name, label, unit) in zip(axes_of, panels, strict=True):
            for row, place in enumerate(places):
                mean, std = mean_std([value / unit for value in place.values(name)])
                if mean == mean:
                    colour = (styles[row] or Style(MUTED)).colour
                    axes.barh(
                        row, mean, height=0.42, color=colour, xerr=std, error_kw={"elinewidth": 1, "ecolor": MUTED}
                    )
                    place_of: dict[str, Any] = {"va": "center", "fontsize": 8.5, "color": INK}
                    place_of |= {"xytext": (4, 0), "textcoords": "offset points"}
                    axes.annotate(f"{mean:.3g}", (mean + (std or 0), row), **place_of)
                if axes is axes_of[0]:  # above its bar, as names are long
                    words = name_settings(place.settings, study.keys)
                    words = words if len(words) <= MOST_LETTERS else f"{words[: MOST_LETTERS - 1]}…"
                    axes.text(0, row - 0.32, words, va="bottom", fontsize=8.5)
            axes.set_ylim(len(places) - 0.5, -0.85)
            axes.set_yticks([])
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
            axes.set_xlim(0, axes.get_xlim()[1] * 1.16)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, prune="upper"))  # whose number the edge would cut
            axes.set_xlabel(label)

    size = (FULL, 1.2 + 0.42 * len(places))
    return render_picture("hardware", name_quantities(names), draw, size=size, panels=(1, len(panels)))


def draw_by_epoch(study: Study, ranking: Sequence[Configuration], names: Sequence[str]) -> Picture:
    """Draw each quantity by epoch, and the seconds of an epoch: a batch size that grows is seen."""
    panels = [*((name, *QUANTITIES[name]) for name in names), ("seconds", "seconds of an epoch", 1)]
    styles = choose_styles(study, ranking)

    def draw(*axes_of: "Axes") -> None:
        for axes, (name, label, unit) in zip(axes_of, panels, strict=True):
            for place, style in reversed(list(zip(ranking, styles, strict=True))):
                for run in place.runs:
                    draw_quantity(axes, run, name, unit, style)
            longest = max((epoch for run in study.runs for epoch, _ in run.points(name)), default=1)
            show_epochs(axes, 1, longest)
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])  # a flat line at the top is seen whole
            axes.set_ylabel(label)

    size, title = (FULL, 2.9), f"{name_quantities(names)} by epoch"
    entries = legend_entries(study, ranking)
    return render_picture(
        "hardware_epochs", title, draw, entries, shared_legend=True, size=size, panels=(1, len(panels)), sharey=False
    )


def draw_quantity(axes: "Axes", run: Run, name: str, unit: float, style: Style | None) -> None:
    """Draw one quantity of a run; grey and thin for one of many configurations."""
    line: dict[str, Any] = {"linewidth": 1.3 if style else 0.7, "alpha": 0.9 if style else 0.35, "markersize": 3}
    draw_line(axes, [(epoch, value / unit) for epoch, value in run.points(name)], style or Style(MUTED), **line)
