"""The pictures of a study: its learning curves, and accuracy against time."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from iolaus.files.layout import DONE, FAILED, FINISHED, PRUNED
from iolaus.report.configurations import Configuration, longest_minutes, mean_std, name_settings
from iolaus.report.runs import Study
from iolaus.show.drawing import (
    BEST_COLOUR,
    DASHES,
    MUTED,
    SERIES,
    Entry,
    Picture,
    Style,
    draw_line,
    render_picture,
    show_epochs,
    use_log_scale,
)
from iolaus.show.numbers import metric_of, time_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STYLES = 10  # configurations; beyond, nobody tells them apart
MANY_RUNS = 60
SPLIT_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}
LOG_FROM = 50  # a log scale for values that span so much


def choose_styles(study: Study, ranking: Sequence[Configuration]) -> list[Style | None]:
    """A style for each configuration; if there are too many, for the best one only.

    Where there are more than colours, dashes tell the last key's value, if that is enough.
    """
    if len(ranking) > MOST_STYLES:
        return [Style(BEST_COLOUR) if ranking[0].finished_runs else None, *[None] * (len(ranking) - 1)]
    if len(ranking) <= len(SERIES):
        return [Style(colour) for colour in SERIES[: len(ranking)]]
    places = [[configuration.settings.get(key) for key in study.keys] for configuration in ranking]
    colours = list(dict.fromkeys(tuple(place[:-1]) for place in places))
    dashes = list(dict.fromkeys(place[-1] for place in places))
    if len(colours) <= len(SERIES) and len(dashes) <= len(DASHES):
        return [Style(SERIES[colours.index(tuple(place[:-1]))], dashes.index(place[-1])) for place in places]
    return [Style(SERIES[i % len(SERIES)], i // len(SERIES)) for i in range(len(ranking))]


def legend_entries(study: Study, ranking: Sequence[Configuration]) -> list[Entry]:
    """The legend that all pictures of the runs share."""
    best = "" if len(ranking) <= MOST_STYLES else "best: "
    entries = [
        Entry(best + name_settings(configuration.settings, study.keys), style)
        for configuration, style in zip(ranking, choose_styles(study, ranking), strict=True)
        if style is not None and study.keys
    ]
    statuses = {run.status for run in study.runs if run.history}
    if PRUNED in statuses:
        entries.append(Entry("pruned", Style(MUTED, 1)))
    if FAILED in statuses:
        entries.append(Entry("failed", Style(MUTED), "x"))
    if statuses - {FINISHED, FAILED, PRUNED}:
        entries.append(Entry("not finished", Style(MUTED), "o", hollow=True))
    return entries


def draw_pictures(study: Study, ranking: Sequence[Configuration]) -> list[Picture]:
    """Those of the pictures that there are numbers for."""
    entries, pictures = legend_entries(study, ranking), []
    objective = [study.objective] if "/" in study.objective else []  # of an epoch, not the costs of a run
    for metric in dict.fromkeys((*objective, "val/accuracy", "val/loss", "train/loss")):
        if any(run.points(metric) for run in study.runs):
            split, _, name = metric.partition("/")
            title = f"{SPLIT_TITLES.get(split, split)} {name.replace('_', ' ')} by epoch"
            draw = partial(draw_metric, study=study, ranking=ranking, metric=metric)
            pictures.append(render_picture(metric.replace("/", "_"), title, draw, entries, shared_legend=True))
    finished = [run for configuration in ranking for run in configuration.finished_runs]
    metric = "test/accuracy" if all("test/accuracy" in run.numbers for run in finished) else "val/accuracy"
    if any(metric in run.numbers and run.numbers.get("minutes") for run in finished):
        split, unit = (
            "Test" if metric.startswith("test") else "Validation",
            time_metric(longest_minutes(study.runs)).name,
        )
        title = f"{split} accuracy against {unit} of training"
        points = [Entry(e.label, e.style, e.style.marker) for e in entries if e.style.colour != MUTED]
        draw = partial(draw_times, study=study, ranking=ranking, metric=metric)
        pictures.append(render_picture("accuracy_time", title, draw, points, shared_legend=True))
    return pictures


def draw_metric(axes: "Axes", study: Study, ranking: Sequence[Configuration], metric: str) -> None:
    """Draw one metric by epoch: every run, and the mean of the seeds with a band of one standard deviation."""
    percent, many = metric_of(metric).percent, len(study.runs) > MANY_RUNS
    lines: dict[str, list[tuple[float, float]]] = {
        run.name: [(epoch, 100 * value if percent else value) for epoch, value in run.points(metric)]
        for run in study.runs
    }
    # the best on top
    for configuration, style in reversed(list(zip(ranking, choose_styles(study, ranking), strict=True))):
        averaged = [dict(lines[run.name]) for run in configuration.finished_runs if lines[run.name]]
        for run in configuration.runs:
            if lines[run.name]:
                draw_run(axes, lines[run.name], run.status, style, style is None or len(averaged) > 1, many)
        if len(averaged) > 1:
            draw_mean(axes, averaged, style or Style())
    points = [point for line in lines.values() for point in line]
    longest = max(int(epoch) for epoch, _ in points)
    show_epochs(axes, 1, longest)
    axes.set_ylabel(metric_of(metric).axis)
    focus_on_end(axes, sorted(value for _, value in points), percent, longest)


def draw_run(
    axes: "Axes", points: Sequence[tuple[float, float]], status: str, style: Style | None, faint: bool, many: bool
) -> None:
    """Draw a line, with a mark at its end if the run failed or is not finished.

    style: None for one of many configurations. faint: in the background of a mean or of the best. many: as are others.
    """
    line, width, alpha, order = style or Style(), 1.3, 1.0, 3.0
    if status == PRUNED:
        line, width, alpha, order = Style(MUTED, 1), 0.5 if many else 0.9, 0.55, 1.8
    elif faint:
        width, alpha, order = 0.7, 0.3 if many else 0.45, 2.0
    pixels = many and faint  # hundreds of lines would make the page heavy
    look: dict[str, Any] = {"linewidth": width, "alpha": alpha, "zorder": order, "rasterized": pixels}
    draw_line(axes, points, line, mark_points=alpha == 1, markersize=3.2, **look)
    if status not in DONE:
        mark, width, face = ("x", 1.6, None) if status == FAILED else ("o", 1.0, "none")
        look = {"color": (style or Style(MUTED)).colour, "markerfacecolor": face, "markeredgewidth": width}
        axes.plot(*points[-1], mark, markersize=3 if many else 6, zorder=4, rasterized=pixels, **look)


def draw_mean(axes: "Axes", runs: Sequence[dict[float, float]], style: Style) -> None:
    """Draw the mean over the epochs that all of the runs have reached, with its band."""
    epochs = sorted(set.intersection(*map(set, runs)))
    values = np.array([[run[epoch] for epoch in epochs] for run in runs])
    mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
    low = np.maximum(mean - std, values.min(axis=0))  # on a log scale the band may reach below all
    high = np.minimum(mean + std, values.max(axis=0))  # and above 100 % there is nothing
    axes.fill_between(epochs, low, high, color=style.colour, alpha=0.15, linewidth=0)
    draw_line(axes, list(zip(epochs, mean, strict=True)), style, linewidth=1.6, markersize=3.6, zorder=3)


def focus_on_end(axes: "Axes", values: Sequence[float], percent: bool, epochs: int) -> None:
    """Show where the runs end: cut off the first climb of long runs; losses of all sizes get a log scale."""
    if percent and epochs >= 20:
        low, high = values[len(values) // 4], values[-1]
        axes.set_ylim(low - 0.02 * (high - low), high + 0.06 * (high - low))
    elif not percent and values[0] > 0 and values[-1] > LOG_FROM * values[0]:
        use_log_scale(axes.yaxis)


def draw_times(axes: "Axes", study: Study, ranking: Sequence[Configuration], metric: str) -> None:
    """Draw a point for each finished configuration, with error bars over its seeds."""
    times, accuracy, unit = [], metric_of(metric), time_metric(longest_minutes(study.runs)).name
    for configuration, style in reversed(list(zip(ranking, choose_styles(study, ranking), strict=True))):
        mean, scatter = mean_std(accuracy.scale(configuration.values(metric)))
        time, spread = mean_std([value for value in configuration.values(unit) if value > 0])
        if configuration.finished_runs and not math.isnan(mean + time):
            point = style or Style()
            look: dict[str, Any] = {"color": point.colour, "alpha": 1.0 if style else 0.45, "markeredgewidth": 0}
            axes.errorbar(time, mean, yerr=scatter, xerr=spread, fmt=point.marker, elinewidth=1.2, markersize=6, **look)
            times.append(time)
    axes.set_xlabel(unit)
    axes.set_ylabel(accuracy.axis)
    axes.margins(0.08)
    if times and max(times) > 20 * min(times):
        use_log_scale(axes.xaxis)
    else:
        axes.set_xlim(left=0)
