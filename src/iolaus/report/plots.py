"""The pictures of a study: its learning curves, and accuracy against time."""

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

from iolaus.curves import MARKERS_UP_TO
from iolaus.report.drawing import BEST_COLOUR, DASHES, MUTED, SERIES, Entry, Picture, Style, logarithmic, picture
from iolaus.report.groups import Group, mean_std
from iolaus.report.runs import FAILED, FINISHED, PRUNED, Run, Study

MOST_STYLES = 10  # groups; beyond, nobody tells them apart
MANY_RUNS = 60
LOG_FROM = 50  # a log scale for values that span so much


def styles(study: Study, groups: Sequence[Group]) -> list[Style] | None:
    """A style for each group; None for too many.

    Where there are more groups than colours, the dashes tell the last key's value, if that is enough.
    """
    if len(groups) > MOST_STYLES:
        return None
    if len(groups) <= len(SERIES):
        return [Style(colour) for colour in SERIES[: len(groups)]]
    *first, last = study.keys
    rest = list(dict.fromkeys(tuple(group.settings.get(key) for key in first) for group in groups))
    lasts = list(dict.fromkeys(group.settings.get(last) for group in groups))
    if len(rest) <= len(SERIES) and len(lasts) <= len(DASHES):
        places = [
            (rest.index(tuple(g.settings.get(k) for k in first)), lasts.index(g.settings.get(last))) for g in groups
        ]
        return [Style(SERIES[colour], dash) for colour, dash in places]
    return [Style(SERIES[i % len(SERIES)], i // len(SERIES)) for i in range(len(groups))]


def legend(study: Study, groups: Sequence[Group], labels: Sequence[str]) -> list[Entry]:
    """Which line is which; with too many groups only the best one has a name."""
    chosen = styles(study, groups)
    if chosen is None:
        entries = [Entry(f"best: {labels[0]}", Style(BEST_COLOUR))] if groups[0].is_finished else []
    elif study.keys:
        entries = [Entry(label, style) for label, style in zip(labels, chosen, strict=True)]
    else:
        entries = []
    drawn = [run for run in study.runs if run.history]
    if any(run.status == PRUNED for run in drawn):
        entries.append(Entry("pruned", Style(MUTED, 1)))
    if any(run.status == FAILED for run in drawn):
        entries.append(Entry("failed", Style(MUTED), "x"))
    if any(run.status not in (FINISHED, FAILED, PRUNED) for run in drawn):
        entries.append(Entry("not finished", Style(MUTED), "o", hollow=True))
    return entries


def pictures(study: Study, groups: Sequence[Group], labels: Sequence[str]) -> list[Picture]:
    """Those of the plots that there are numbers for."""
    chosen, entries = styles(study, groups), legend(study, groups, labels)
    drawn = []
    for metric in ("val/accuracy", "val/loss", "train/loss"):
        if any(run.points(metric) for run in study.runs):
            title = metric.replace("val/", "Validation ").replace("train/", "Training ") + " by epoch"
            curves = Curves(study, groups, chosen, metric)
            drawn.append(picture(metric.replace("/", "_"), title, curves.draw, entries, shared_legend=True))
    metric = "test/accuracy" if all(r.last("test/accuracy") is not None for r in finished(study)) else "val/accuracy"
    if any(run.last(metric) is not None and run.minutes for run in finished(study)):
        title = f"{'Test' if metric.startswith('test') else 'Validation'} accuracy against minutes of training"
        names = [e for e in entries if e.label not in ("pruned", "failed", "not finished")]
        points = [Entry(e.label, e.style, e.style.marker) for e in names]
        draw = partial(draw_times, study=study, groups=groups, chosen=chosen, metric=metric)
        drawn.append(picture("accuracy_minutes", title, draw, points, shared_legend=True))
    return drawn


def finished(study: Study) -> list[Run]:
    return [run for run in study.runs if run.status == FINISHED]


class Curves:
    """One metric by epoch: every run, and the mean of the seeds with a band of one standard deviation."""

    def __init__(self, study: Study, groups: Sequence[Group], chosen: list[Style] | None, metric: str) -> None:
        self.groups, self.chosen, self.metric = groups, chosen, metric
        self.scale = 100.0 if metric.endswith("accuracy") else 1.0
        self.many = len(study.runs) > MANY_RUNS

    def draw(self, axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for i, group in reversed(list(enumerate(self.groups))):  # the best on top
            best = self.chosen is None and i == 0 and group.is_finished
            style = Style(BEST_COLOUR) if best else self.chosen[i] if self.chosen else Style()
            averaged = [run for run in group.counted if run.status == FINISHED and self.points(run)]
            for run in group.runs:
                self.draw_run(axes, run, style, faint=len(averaged) > 1, best=best)
            if len(averaged) > 1:
                self.draw_mean(axes, averaged, style)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{self.metric.replace('/', ' ')}{', %' if self.scale == 100 else ''}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=7))
        self.limit(axes)

    def points(self, run: Run) -> list[tuple[int, float]]:
        return [(epoch, self.scale * value) for epoch, value in run.points(self.metric)]

    def draw_run(self, axes: Any, run: Run, style: Style, faint: bool, best: bool) -> None:
        points = self.points(run)
        if not points:
            return
        epochs, values = zip(*points, strict=True)
        if run.status == PRUNED:
            line = {"color": MUTED, "linestyle": (0, DASHES[1]), "linewidth": 0.5 if self.many else 0.9, "alpha": 0.55}
        elif self.many and not best:  # as pixels: hundreds of lines would make the page heavy
            line = {"color": style.colour, "linewidth": 0.6, "alpha": 0.3}
        else:
            crowded = faint or (self.chosen is None and not best)
            line = {"color": style.colour, "linestyle": style.line, "linewidth": 0.7 if crowded else 1.3}
            line |= {"alpha": 0.45 if crowded else 1.0}
        dot = "o" if len(points) <= (MARKERS_UP_TO if line.get("alpha") == 1.0 else 1) else None
        axes.plot(epochs, values, marker=dot, markersize=3.2, rasterized=self.many and not best,
                  zorder=4 if best else 1.8 if run.status == PRUNED else 2, **line)  # fmt: skip
        end = {
            "color": style.colour if self.chosen else MUTED,
            "markersize": 3 if self.many else 6,
            "zorder": 4,
            "rasterized": self.many,
        }
        if run.status == FAILED:
            axes.plot(epochs[-1:], values[-1:], marker="x", markeredgewidth=1.6, **end)
        elif run.status not in (FINISHED, PRUNED):
            axes.plot(epochs[-1:], values[-1:], marker="o", markerfacecolor="none", **end)

    def draw_mean(self, axes: Any, runs: Sequence[Run], style: Style) -> None:
        """Over the epochs that all of the runs have reached."""
        by_run = [dict(self.points(run)) for run in runs]
        epochs = sorted(set.intersection(*(set(values) for values in by_run)))
        mean = [statistics.fmean(values[e] for values in by_run) for e in epochs]
        std = [statistics.stdev(values[e] for values in by_run) for e in epochs]
        lowest = [min(values[e] for values in by_run) for e in epochs]  # on a log scale, m - s may lie below all
        low = [max(m - s, least) for m, s, least in zip(mean, std, lowest, strict=True)]
        high = [m + s for m, s in zip(mean, std, strict=True)]
        axes.fill_between(epochs, low, high, color=style.colour, alpha=0.15, linewidth=0)
        dot = style.marker if len(epochs) <= MARKERS_UP_TO else None
        axes.plot(epochs, mean, color=style.colour, linestyle=style.line, linewidth=1.6, marker=dot, markersize=3.6,
                  zorder=3)  # fmt: skip

    def limit(self, axes: Any) -> None:
        """Show where the runs end up: the first climb of long runs is cut off; losses of all sizes get a log scale."""
        values = sorted(value for group in self.groups for run in group.runs for _, value in self.points(run))
        longest = max(epoch for group in self.groups for run in group.runs for epoch, _ in self.points(run))
        margin = max(0.02 * longest, 0.3)
        axes.set_xlim(1 - min(margin, 0.5), longest + margin)  # there is no epoch 0
        if self.scale == 100 and longest >= 20:
            low, high = values[len(values) // 4], values[-1]
            axes.set_ylim(low - 0.02 * (high - low), high + 0.06 * (high - low))
        elif self.scale == 1 and values[0] > 0 and values[-1] > LOG_FROM * values[0]:
            logarithmic(axes.yaxis)


def draw_times(axes: Any, study: Study, groups: Sequence[Group], chosen: list[Style] | None, metric: str) -> None:
    """A point for each finished group, with error bars over its seeds."""
    minutes = []
    for i, group in reversed(list(enumerate(groups))):
        runs = [run for run in group.runs if run.status == FINISHED]
        accuracy, scatter = mean_std([100 * v for run in runs if (v := run.last(metric)) is not None])
        time, spread = mean_std([run.minutes for run in runs if run.minutes])
        if accuracy is None or time is None:
            continue
        best = chosen is None and i == 0
        style = Style(BEST_COLOUR) if best else chosen[i] if chosen else Style()
        look = {"markersize": 7, "zorder": 3} if best else {"markersize": 6, "alpha": 1.0 if chosen else 0.45}
        axes.errorbar(time, accuracy, yerr=scatter, xerr=spread, fmt=style.marker, color=style.colour,
                      markeredgewidth=0, elinewidth=1.2, **look)  # fmt: skip
        minutes.append(time)
    axes.set_xlabel("minutes")
    axes.set_ylabel(f"{metric.replace('/', ' ')}, %")
    axes.margins(0.08)
    if max(minutes) > 20 * min(minutes):
        logarithmic(axes.xaxis)
    elif min(minutes) < 0.4 * max(minutes):
        axes.set_xlim(left=0)
    elif min(minutes) > 0.8 * max(minutes):  # nearly the same: differences of seconds are no result
        axes.set_xlim(0.8 * min(minutes), 1.2 * max(minutes))
