"""How pictures look, in one place: colours, lines, axes, legends. A run's curves.png and a report's plots use it.

Nothing here is global: no pyplot, and no setting outlives a picture. matplotlib is imported where it is used, since it
takes half a second.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from iolaus.show.png import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers (https://jfly.uni-koeln.de/color/)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, MUTED, GRID = "#1b1f24", "#626a73", "#e3e6ea"
BEST_COLOUR = COLOURS[1]
SERIES = (*COLOURS, INK)
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1, 1.5))
# the colours of a PNG as variables of a page, which sets them for light and dark (report/templates/style.css)
CSS_COLOURS = {
    colour.lower(): f"var(--{name})"
    for colour, name in [(INK, "ink"), (MUTED, "muted"), (GRID, "line"), *((c, f"c{i}") for i, c in enumerate(COLOURS))]
}
MOST_MARKERS = 12  # points of a line; beyond, markers only hide it
WIDTH, HEIGHT = 5.2, 3.5  # inches: half a report's page, or the whole of a phone's, at the size of its text
FULL = 2 * WIDTH
LEFT, RIGHT, BOTTOM, TOP = 0.72, 0.14, 0.5, 0.42  # inches around the axes
LEGEND_LINE = 0.183


@dataclass(frozen=True)
class Style:
    """How a series is told from the others."""

    colour: str = SERIES[0]
    dash: int = 0

    @property
    def line(self) -> str | tuple[int, tuple[float, ...]]:
        return (0, DASHES[self.dash]) if self.dash else "-"

    @property
    def marker(self) -> str:
        return "os^"[self.dash]


@dataclass(frozen=True)
class Entry:
    """A line of a legend."""

    label: str
    style: Style
    marker: str = ""  # matplotlib's; the entry of a line has none
    hollow: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture of a report: a PNG on white, and an SVG whose colours the page sets."""

    name: str  # of the file in plots/, without .png
    title: str
    png: bytes
    svg: str
    wide: bool


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Within it, or in a function that it decorates, matplotlib has its own defaults, whatever the user has set.

    And no warning, such as that a font lacks a letter. Afterwards all is as it was.
    """
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        warnings.simplefilter("ignore")
        yield


def new_figure(size: tuple[float, float], panels: tuple[int, int] = (1, 1), sharey: bool = False) -> "Figure":
    """A figure of `size` inches with empty axes, `figure.axes`, in rows × columns."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    figure.subplots(*panels, sharey=sharey)
    figure.subplots_adjust(wspace=0.12 if sharey else 0.34, hspace=0.5)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GRID)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", colors=MUTED, labelsize=9, length=0, left=False, bottom=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set(color=MUTED, fontsize=9.5)
    return figure


def set_title(axes: "Axes", title: str, pad: float = 10) -> None:
    """pad: points between axes and title. With y=1.0 matplotlib does not search a place, which takes time."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, y=1.0, pad=pad)


def show_epochs(axes: "Axes", first: int, last: int) -> None:
    """Let the horizontal axis span the epochs from `first` to `last`, with whole numbers; there is no epoch 0."""
    from matplotlib.ticker import MaxNLocator

    margin = max(0.02 * (last - first), 0.3)
    axes.set_xlim(first - min(margin, 0.5), last + margin)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=7))


def draw_line(
    axes: "Axes", points: Sequence[tuple[float, float]], style: Style, mark_points: bool = True, **line: Any
) -> None:
    """Draw a line through (x, y) points, with markers if they are few and `mark_points`. line: of axes.plot."""
    if points:
        xs, ys = zip(*points, strict=True)
        marker = style.marker if len(points) <= (MOST_MARKERS if mark_points else 1) else None
        axes.plot(xs, ys, color=style.colour, linestyle=style.line, marker=marker, **line)


def show_plain_numbers(axis: "Axis") -> None:
    """Numbers such as 0.0001 and 1e30 at the ticks, without a factor or an offset elsewhere."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.6g}")))


def use_log_scale(axis: "Axis") -> None:
    """A log scale with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.axes.set_xscale("log") if axis is axis.axes.xaxis else axis.axes.set_yscale("log")
    low, high = axis.get_view_interval()
    decades = 0 if low <= 0 else len(f"{high / low:.0f}") - 1
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,), numticks=8))
    show_plain_numbers(axis)
    axis.set_minor_formatter(NullFormatter())


@own_style()
def render_picture(
    name: str,
    title: str,
    draw: Callable[..., None],
    legend: Sequence[Entry] = (),
    shared_legend: bool = False,
    size: tuple[float, float] = (WIDTH, HEIGHT),
    panels: tuple[int, int] = (1, 1),
    sharey: bool = True,
) -> Picture:
    """Make a picture of `size` inches, whose axes, rows × columns of `panels`, are filled by `draw(*axes)`.

    The legend stands below the axes. The SVG has none where the page shows one legend for several pictures.
    """
    import matplotlib

    png, svg = io.BytesIO(), io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "text.color": INK}
    with matplotlib.rc_context(settings):
        figure = new_figure(size, panels, sharey=sharey and panels != (1, 1))
        if panels == (1, 1):
            set_title(figure.axes[0], title)
        else:
            figure.suptitle(title, x=LEFT / size[0], y=0.985, ha="left", fontsize=11, fontweight="bold")
        set_margins(figure, below=0)
        draw(*figure.axes)
        if not shared_legend:
            add_legend(figure, legend)
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        if shared_legend:
            add_legend(figure, legend)
        save_png(figure, png, dpi=140, compress_level=3)
    return Picture(name, title, png.getvalue(), theme_svg(svg.getvalue(), title), wide=size[0] > WIDTH)


def set_margins(figure: "Figure", below: float) -> None:
    """Set margins in inches: a layout engine would draw everything twice. below: inches to add under the axes."""
    width, height = figure.get_figwidth(), figure.get_figheight() + below
    figure.set_size_inches(width, height)
    sides = {"left": LEFT / width, "right": 1 - RIGHT / width}
    figure.subplots_adjust(**sides, bottom=(BOTTOM + below) / height, top=1 - TOP / height)


def add_legend(figure: "Figure", entries: Sequence[Entry]) -> None:
    """Make the figure higher by a legend below its axes."""
    from matplotlib.lines import Line2D

    if not entries:
        return
    columns = 2 if max(len(entry.label) for entry in entries) <= 26 else 1
    set_margins(figure, below=LEGEND_LINE * -(-len(entries) // columns) + 0.08)
    handles = []
    for entry in entries:
        colour, line = entry.style.colour, "none" if entry.marker else entry.style.line
        face = "none" if entry.hollow else colour
        kind: dict[str, Any] = {"linestyle": line, "marker": entry.marker or None, "markerfacecolor": face}
        handles.append(Line2D([], [], color=colour, label=entry.label, **kind))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (LEFT / figure.get_figwidth() - 0.02, 0.0)}
    figure.legend(
        handles=handles, ncols=columns, frameon=False, fontsize=9, handlelength=2.4, labelspacing=0.35, **place
    )


def theme_svg(svg: str, title: str) -> str:
    """Turn matplotlib's SVG into a part of a page, with the page's colours and fonts, and an accessible name."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9]+_\d+"', "", svg)  # figure_1 and so on, the same in each picture
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = re.sub(r"<svg[^>]*>", lambda _: f'<svg {box[0]} role="img" aria-label="{escape(title)}">', svg, count=1)
    svg = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: CSS_COLOURS.get(found[0], found[0]), svg)
    return re.sub(r"\s*\n\s*", "\n", svg)
