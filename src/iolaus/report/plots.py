"""The pictures of a study: its learning curves, and accuracy against time."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from iolaus.checkpoint import DONE
from iolaus.curves import MARKERS_UP_TO
from iolaus.report.drawing import BEST_COLOUR, DASHES, MUTED, SERIES, Entry, Picture, Style, logarithmic, picture
from iolaus.report.groups import Group, label, mean_std, measure
from iolaus.report.runs import FAILED, FINISHED, PRUNED, Study

MOST_STYLES = 10  # groups; beyond, nobody tells them apart
MANY_RUNS = 60
LOG_FROM = 50  # a log scale for values that span so much
Points = Sequence[tuple[int, float]]  # (epoch, value)


def styles(study: Study, groups: Sequence[Group]) -> list[Style | None]:
    """A style for each group; with too many of them for the best one only.

    Where there are more than colours, dashes tell the last key's value, if that is enough.
    """
    if len(groups) > MOST_STYLES:
        return [Style(BEST_COLOUR) if groups[0].finished else None, *[None] * (len(groups) - 1)]
    if len(groups) <= len(SERIES):
        return [Style(colour) for colour in SERIES[: len(groups)]]
    places = [[group.settings.get(key) for key in study.keys] for group in groups]
    colours = list(dict.fromkeys(tuple(place[:-1]) for place in places))
    dashes = list(dict.fromkeys(place[-1] for place in places))
    if len(colours) <= len(SERIES) and len(dashes) <= len(DASHES):
        return [Style(SERIES[colours.index(tuple(place[:-1]))], dashes.index(place[-1])) for place in places]
    return [Style(SERIES[i % len(SERIES)], i // len(SERIES)) for i in range(len(groups))]


def legend(study: Study, groups: Sequence[Group]) -> list[Entry]:
    """Which line is which."""
    chosen, best = styles(study, groups), "" if len(groups) <= MOST_STYLES else "best: "
    entries = [
        Entry(best + label(group.settings, study.keys), style)
        for group, style in zip(groups, chosen, strict=True)
        if style is not None and study.keys
    ]
    drawn = {run.status for run in study.runs if run.history}
    if PRUNED in drawn:
        entries.append(Entry("pruned", Style(MUTED, 1)))
    if FAILED in drawn:
        entries.append(Entry("failed", Style(MUTED), "x"))
    if drawn - {FINISHED, FAILED, PRUNED}:
        entries.append(Entry("not finished", Style(MUTED), "o", hollow=True))
    return entries


def pictures(study: Study, groups: Sequence[Group]) -> list[Picture]:
    """Those of the plots that there are numbers for."""
    entries, drawn = legend(study, groups), []
    for metric in ("val/accuracy", "val/loss", "train/loss"):
        if any(run.points(metric) for run in study.runs):
            title = metric.replace("val/", "Validation ").replace("train/", "Training ") + " by epoch"
            draw = partial(draw_curves, study=study, groups=groups, metric=metric)
            drawn.append(picture(metric.replace("/", "_"), title, draw, entries, shared_legend=True))
    finished = [run for group in groups for run in group.finished]
    metric = "test/accuracy" if all("test/accuracy" in run.numbers for run in finished) else "val/accuracy"
    if any(metric in run.numbers and run.numbers.get("minutes") for run in finished):
        title = f"{'Test' if metric.startswith('test') else 'Validation'} accuracy against minutes of training"
        points = [Entry(e.label, e.style, e.style.marker) for e in entries if e.style.colour != MUTED]
        draw = partial(draw_times, study=study, groups=groups, metric=metric)
        drawn.append(picture("accuracy_minutes", title, draw, points, shared_legend=True))
    return drawn


def draw_curves(axes: Any, study: Study, groups: Sequence[Group], metric: str) -> None:
    """One metric by epoch: every run, and the mean of the seeds with a band of one standard deviation."""
    from matplotlib.ticker import MaxNLocator

    percent, many = measure(metric).percent, len(study.runs) > MANY_RUNS
    lines = {
        run.name: [(epoch, 100 * value if percent else value) for epoch, value in run.points(metric)]
        for run in study.runs
    }
    for group, style in reversed(list(zip(groups, styles(study, groups), strict=True))):  # the best on top
        averaged = [dict(lines[run.name]) for run in group.finished if lines[run.name]]
        for run in group.runs:
            if lines[run.name]:
                draw_run(axes, lines[run.name], run.status, style, style is None or len(averaged) > 1, many)
        if len(averaged) > 1:
            draw_mean(axes, averaged, style or Style())
    axes.set_xlabel("epoch")
    axes.set_ylabel(measure(metric).axis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=7))
    limit(axes, [point for line in lines.values() for point in line], percent)


def draw_run(axes: Any, points: Points, status: str, style: Style | None, faint: bool, many: bool) -> None:
    """A line, with a mark at its end where neither the run nor its study ended it.

    style: None for one of many groups. faint: it is background, to a mean or to the best. many: so are others.
    """
    line, width, alpha, order = style or Style(), 1.3, 1.0, 3.0
    if status == PRUNED:
        line, width, alpha, order = Style(MUTED, 1), 0.5 if many else 0.9, 0.55, 1.8
    elif faint:
        width, alpha, order = 0.7, 0.3 if many else 0.45, 2.0
    epochs, values = zip(*points, strict=True)
    dot = "o" if len(points) <= (MARKERS_UP_TO if alpha == 1 else 1) else None
    pixels = many and faint  # hundreds of lines would make the page heavy
    axes.plot(epochs, values, color=line.colour, linestyle=line.line, linewidth=width, alpha=alpha, marker=dot,
              markersize=3.2, zorder=order, rasterized=pixels)  # fmt: skip
    if status not in DONE:
        mark, width, face = ("x", 1.6, None) if status == FAILED else ("o", 1.0, "none")
        axes.plot(epochs[-1], values[-1], mark, color=(style or Style(MUTED)).colour, markerfacecolor=face,
                  markeredgewidth=width, markersize=3 if many else 6, zorder=4, rasterized=pixels)  # fmt: skip


def draw_mean(axes: Any, runs: Sequence[dict[int, float]], style: Style) -> None:
    """Over the epochs that all of the runs have reached."""
    epochs = sorted(set.intersection(*map(set, runs)))
    values = np.array([[run[epoch] for epoch in epochs] for run in runs])
    mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
    low = np.maximum(mean - std, values.min(axis=0))  # on a log scale the band may reach below all
    axes.fill_between(epochs, low, mean + std, color=style.colour, alpha=0.15, linewidth=0)
    dot = style.marker if len(epochs) <= MARKERS_UP_TO else None
    axes.plot(epochs, mean, color=style.colour, linestyle=style.line, linewidth=1.6, marker=dot, markersize=3.6,
              zorder=3)  # fmt: skip


def limit(axes: Any, points: Points, percent: bool) -> None:
    """Show where the runs end up: the first climb of long runs is cut off; losses of all sizes get a log scale."""
    longest, values = max(epoch for epoch, _ in points), sorted(value for _, value in points)
    margin = max(0.02 * longest, 0.3)
    axes.set_xlim(1 - min(margin, 0.5), longest + margin)  # there is no epoch 0
    if percent and longest >= 20:
        low, high = values[len(values) // 4], values[-1]
        axes.set_ylim(low - 0.02 * (high - low), high + 0.06 * (high - low))
    elif not percent and values[0] > 0 and values[-1] > LOG_FROM * values[0]:
        logarithmic(axes.yaxis)


def draw_times(axes: Any, study: Study, groups: Sequence[Group], metric: str) -> None:
    """A point for each finished group, with error bars over its seeds."""
    minutes = []
    for group, style in reversed(list(zip(groups, styles(study, groups), strict=True))):  # the best on top
        accuracy, scatter = mean_std(measure(metric).scaled(group.values(metric)))
        time, spread = mean_std([value for value in group.values("minutes") if value])
        if group.finished and not math.isnan(accuracy + time):
            point = style or Style()
            axes.errorbar(time, accuracy, yerr=scatter, xerr=spread, fmt=point.marker, color=point.colour,
                          markeredgewidth=0, elinewidth=1.2, markersize=6, alpha=1.0 if style else 0.45)  # fmt: skip
            minutes.append(time)
    axes.set_xlabel("minutes")
    axes.set_ylabel(measure(metric).axis)
    axes.margins(0.08)
    if minutes and max(minutes) > 20 * min(minutes):
        logarithmic(axes.xaxis)
    else:
        axes.set_xlim(left=0)
