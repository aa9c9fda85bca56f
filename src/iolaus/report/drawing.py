"""Pictures for two places: a PNG on white, and an SVG whose colours a page sets, for light and dark.

The functions that draw get matplotlib axes. Nothing here is global: no pyplot, and the settings hold for one picture.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from iolaus.curves import COLOURS

INK, MUTED, GRID = "#1b1f24", "#626a73", "#e3e6ea"
BEST_COLOUR = COLOURS[1]
SERIES = (*COLOURS, INK)
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1, 1.5))
# What takes the place of a colour of the PNG in the page
VARIABLES = {
    colour.lower(): f"var(--{name})"
    for colour, name in [(INK, "ink"), (MUTED, "muted"), (GRID, "line"), *((c, f"c{i}") for i, c in enumerate(COLOURS))]
}
WIDTH, HEIGHT = 5.2, 3.5  # inches: half a page, or the whole of a phone's, at the size of its text
FULL = 2 * WIDTH
LEFT, RIGHT, BOTTOM, TOP = 0.62, 0.14, 0.5, 0.42  # inches around the axes
LEGEND_LINE = 0.183
SETTINGS: Any = {
    "svg.fonttype": "none", "font.size": 10, "text.parse_math": False, "text.color": INK,
    "axes.edgecolor": GRID, "axes.labelcolor": MUTED, "axes.labelsize": 9.5, "axes.titlelocation": "left",
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlecolor": INK, "axes.titlepad": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": GRID, "grid.linewidth": 0.8, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": 9,
    "ytick.labelsize": 9, "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a series is told from the others."""

    colour: str = SERIES[0]
    dash: int = 0

    @property
    def line(self) -> Any:
        return (0, DASHES[self.dash]) if self.dash else "-"

    @property
    def marker(self) -> str:
        return "os^"[self.dash]


@dataclass(frozen=True)
class Entry:
    """A line of a legend."""

    label: str
    style: Style
    marker: str = ""  # matplotlib's; without one it is a line
    hollow: bool = False


@dataclass(frozen=True)
class Picture:
    name: str  # of the file in plots/, without .png
    title: str
    png: bytes
    svg: str
    wide: bool


def picture(
    name: str,
    title: str,
    draw: Callable[[Any], None],
    legend: Sequence[Entry] = (),
    shared_legend: bool = False,
    size: tuple[float, float] = (WIDTH, HEIGHT),
    panels: tuple[int, int] = (1, 1),
) -> Picture:
    """Let `draw` fill axes, or an array of rows × columns of them where there are several panels.

    The legend stands below the axes; not in the SVG where the page has one for several pictures.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    png, svg = io.BytesIO(), io.StringIO()
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that a font lacks a letter
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        axes = figure.subplots(*panels, squeeze=panels == (1, 1), sharey=panels != (1, 1))
        if panels == (1, 1):
            axes.set_title(title)
        else:
            figure.suptitle(title, x=LEFT / size[0], y=0.985, ha="left", fontsize=11, fontweight="bold")
        set_margins(figure, below=0)
        draw(axes)
        if not shared_legend:
            add_legend(figure, legend)
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        if shared_legend:
            add_legend(figure, legend)
        figure.savefig(png, format="png", dpi=140, pil_kwargs={"compress_level": 3})
    return Picture(name, title, png.getvalue(), themed(svg.getvalue(), title), wide=size[0] > WIDTH)


def set_margins(figure: Any, below: float) -> None:
    """In inches, so that no layout engine has to draw twice. below: inches that are added under the axes."""
    width, height = figure.get_figwidth(), figure.get_figheight() + below
    figure.set_size_inches(width, height)
    figure.subplots_adjust(left=LEFT / width, right=1 - RIGHT / width, bottom=(BOTTOM + below) / height,
                           top=1 - TOP / height, wspace=0.12, hspace=0.5)  # fmt: skip


def add_legend(figure: Any, entries: Sequence[Entry]) -> None:
    """Make the figure higher by a legend below its axes."""
    from matplotlib.lines import Line2D

    if not entries:
        return
    columns = 2 if max(len(entry.label) for entry in entries) <= 26 else 1
    set_margins(figure, below=LEGEND_LINE * -(-len(entries) // columns) + 0.08)
    handles = [
        Line2D([], [], color=e.style.colour, linestyle="none" if e.marker else e.style.line, marker=e.marker or None,
               markerfacecolor="none" if e.hollow else e.style.colour, label=e.label)
        for e in entries
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(LEFT / figure.get_figwidth() - 0.02, 0.0),
                  ncols=columns, frameon=False, fontsize=9, handlelength=2.4, labelspacing=0.35)  # fmt: skip


def themed(svg: str, title: str) -> str:
    """matplotlib's SVG as part of a page: colours and letters become the page's; it has a name."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9]+_\d+"', "", svg)  # figure_1 and so on, the same in each picture
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = re.sub(r"<svg[^>]*>", f'<svg {box[0]} role="img" aria-label="{escape(title)}">', svg, count=1)
    svg = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def logarithmic(axis: Any) -> None:
    """A log scale with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set_xscale("log") if axis.axis_name == "x" else axis.axes.set_yscale("log")
    low, high = axis.get_view_interval()
    decades = 0 if low <= 0 else len(f"{high / low:.0f}") - 1
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
