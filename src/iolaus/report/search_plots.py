"""Pictures of a search by Optuna: how it went, what matters, which values are good.

Not drawn by `optuna.visualization.matplotlib`, which changes pyplot's settings for the whole process and cuts off long
names.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iolaus.errors import first_line
from iolaus.files.optuna_storage import param_importances
from iolaus.report.runs import short_names
from iolaus.report.search import Search
from iolaus.show.drawing import BEST_COLOUR, FULL, HEIGHT, MUTED, SERIES, WIDTH, Entry, Picture, Style, render_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.trial import FrozenTrial

PANELS = 4  # slices side by side
MOST_AXES = 9  # parallel ones
ROOM_FOR_TICKS = 34  # letters below a slice


def draw_search(search: Search) -> tuple[list[Picture], list[str]]:
    """The pictures that there are trials for, and a line about each one that is left out."""
    if not search.complete:
        return [], ["No trial is complete yet: there is nothing to plot."]
    drawings: dict[str, Callable[[], Picture]] = {}
    if len(search.names) > 1:
        drawings["the Pareto front"] = partial(draw_pareto, search)
    for i, name in enumerate(search.names):
        drawings[f"the history of {name}"] = partial(draw_history, search, i)
        drawings[f"importances for {name}"] = partial(draw_importances, search, i)
    drawings |= {"slices": partial(draw_slices, search), "parallel coordinates": partial(draw_parallel, search)}
    pictures, notes = [], []
    for what, draw in drawings.items():
        try:
            pictures.append(draw())
        except Exception as error:  # Optuna's evaluator raises several: for one trial, a space that changes, …
            notes.append(f"Left out: {what} ({first_line(error).rstrip('.')}).")
    return pictures, notes


def objective_values(search: Search, trials: "Sequence[FrozenTrial]", i: int = 0) -> list[float]:
    """One of the objectives of some trials, accuracies in percent."""
    return search.metrics[i].scale(trial.values[i] for trial in trials)


def draw_history(search: Search, i: int) -> Picture:
    """Draw the objective of each trial, the best so far as a line, and the last values of the pruned trials."""
    metric, values = search.metrics[i], objective_values(search, search.complete, i)
    numbers = [trial.number for trial in search.complete]
    best = list(accumulate(values, max if search.maximize[i] else min))
    cut = [t for t in search.trials if t.state.name == "PRUNED" and t.intermediate_values]
    lasts = metric.scale(trial.intermediate_values[max(trial.intermediate_values)] for trial in cut)

    def draw(axes: "Axes") -> None:
        axes.plot([t.number for t in cut], lasts, "x", color=MUTED, markersize=4, alpha=0.6)
        axes.plot(numbers, values, "o", color=SERIES[0], markersize=4.5, markeredgewidth=0, alpha=0.7)
        axes.step(numbers, best, where="post", color=BEST_COLOUR, linewidth=1.6)
        axes.set_xlabel("trial")
        axes.set_ylabel(metric.axis)
        focus(axes, [*values, *lasts], search.maximize[i])

    entries = [Entry("complete", Style(), "o"), Entry("best so far", Style(BEST_COLOUR))]
    entries += [Entry("pruned, at its last epoch", Style(MUTED), "x")] if cut else []
    return render_picture("optuna_history" + (f"_{i}" if i else ""), f"Optuna: {metric.word} by trial", draw, entries)


def draw_importances(search: Search, i: int) -> Picture:
    """Draw the importance of each parameter for good values of the objective."""
    if len(search.complete) < 2:
        raise ValueError("they take two finished trials")
    importances = param_importances(search.study, i)
    if not importances:
        raise ValueError("no parameter was varied")
    names, shares = list(importances)[:10], [100 * share for share in importances.values()][:10]

    def draw(axes: "Axes") -> None:
        axes.barh(range(len(names)), shares, height=0.34, color=SERIES[0])
        for row, (name, share) in enumerate(zip(names, shares, strict=True)):  # above its bar: names are long
            axes.text(0, row - 0.26, f"{name}  {share:.0f} %", va="bottom", fontsize=9)
        axes.set_ylim(len(names) - 0.5, -0.75)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share of the importance, %")

    title = f"Optuna: what matters for {search.metrics[i].word}"
    return render_picture("optuna_importances" + (f"_{i}" if i else ""), title, draw)


def draw_pareto(search: Search) -> Picture:
    """Draw two objectives against each other; a line joins the trials that no other one beats in both."""
    if len(search.names) != 2:
        raise ValueError(f"{len(search.names)} objectives, and a picture has two axes")
    front = sorted(zip(*(objective_values(search, search.best, i) for i in (0, 1)), strict=True))

    def draw(axes: "Axes") -> None:
        dots: dict[str, Any] = {"color": SERIES[0], "markersize": 5, "markeredgewidth": 0, "alpha": 0.5}
        axes.plot(*(objective_values(search, search.complete, i) for i in (0, 1)), "o", **dots)
        axes.plot(*zip(*front, strict=True), "o-", color=BEST_COLOUR, markersize=6, linewidth=1.2)
        axes.set_xlabel(search.metrics[0].axis)
        axes.set_ylabel(search.metrics[1].axis)

    entries = [Entry("trial", Style(), "o"), Entry("Pareto front", Style(BEST_COLOUR))]
    return render_picture("optuna_pareto", "Optuna: Pareto front", draw, entries, size=(FULL, HEIGHT))


def varied_params(trials: "Sequence[FrozenTrial]") -> list[str]:
    """The parameters with more than one value. Raises ValueError where there is none."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    varied = [name for name in names if len({str(t.params[name]) for t in trials if name in t.params}) > 1]
    if not varied:
        raise ValueError("no parameter has more than one value yet")
    return varied


def place_on_axis(name: str, trials: "Sequence[FrozenTrial]") -> tuple[NDArray[np.float64], dict[float, str]]:
    """The place of each trial on the axis of a parameter, and the labels of the axis: choices, or three numbers.

    Places are logarithms if the search space is logarithmic, and for a categorical parameter the numbers of choices.
    """
    distribution, values = trials[0].distributions[name], [trial.params[name] for trial in trials]
    if hasattr(distribution, "choices"):
        choices = {float(i): str(choice) for i, choice in enumerate(distribution.choices)}
        return np.array([distribution.choices.index(value) for value in values], float), choices
    is_log = getattr(distribution, "log", False)
    places = np.log(values) if is_log else np.array(values, float)
    return places, label_axis(places, np.exp if is_log else float)


def label_axis(places: NDArray[np.float64], back: Callable[[float], float]) -> dict[float, str]:
    """Label the smallest place, the middle and the largest; `back` turns a place into its number."""
    return {float(mark): f"{back(mark):.3g}" for mark in np.linspace(places.min(), places.max(), 3)}


def draw_slices(search: Search) -> Picture:
    """Draw the first objective against each parameter by itself."""
    names = varied_params(search.complete)
    rows = -(-len(names) // PANELS)
    columns = -(-len(names) // rows)

    def draw(*panels: "Axes") -> None:
        for axes, name, word in zip(panels, names, short_names(names), strict=False):
            trials = [trial for trial in search.complete if name in trial.params]
            (at, ticks), values = place_on_axis(name, trials), np.array(objective_values(search, trials))
            best = np.isin([trial.number for trial in trials], [trial.number for trial in search.best])
            for chosen, colour, size, alpha in ((~best, SERIES[0], 4.5, 0.6), (best, BEST_COLOUR, 7, 1.0)):
                axes.scatter(at[chosen], values[chosen], size**2, colour, linewidths=0, alpha=alpha)
            axes.set_xlabel(word)
            letters = sum(map(len, ticks.values()))
            longest = max(4, ROOM_FOR_TICKS // len(ticks)) if letters > ROOM_FOR_TICKS else letters
            texts = [text if len(text) <= longest else f"{text[: longest - 1]}…" for text in ticks.values()]
            axes.set_xticks(list(ticks), texts, fontsize=9 if letters <= 24 else 7.5)
            margin = 0.15 * (max(ticks) - min(ticks))
            axes.set_xlim(min(ticks) - margin, max(ticks) + margin)
            focus(axes, values.tolist(), search.maximize[0])
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        for axes in panels[::columns]:
            axes.set_ylabel(search.metrics[0].axis)

    title, size = f"Optuna: {search.metrics[0].word} by parameter", (FULL if columns > 1 else WIDTH, 0.6 + 2.5 * rows)
    return render_picture("optuna_slices", title, draw, size=size, panels=(rows, columns))


def draw_parallel(search: Search) -> Picture:
    """Draw each trial as a line through its parameters to its objective; the best tenth stands out."""
    names = varied_params(search.complete)[:MOST_AXES]
    trials = [trial for trial in search.complete if all(name in trial.params for name in names)]
    if len(names) < 2 or len(trials) < 2:
        raise ValueError("they take two parameters, and two trials that have all of them")
    trials.sort(key=lambda trial: trial.values[0], reverse=not search.maximize[0])  # the best last, on top
    values = np.array(objective_values(search, trials))
    verticals = [*(place_on_axis(name, trials) for name in names), (values, label_axis(values, float))]

    def draw(axes: "Axes") -> None:
        heights = []
        for x, (at, ticks) in enumerate(verticals):
            low, width = min(ticks), max(ticks) - min(ticks) or 1.0
            heights.append((at - low) / width)
            axes.axvline(x, color=MUTED, linewidth=0.8)
            for mark, text in ticks.items():
                place: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(text, (x, (mark - low) / width), fontsize=8.5, **place)
        for rank, line in zip(range(len(trials) - 1, -1, -1), np.transpose(heights), strict=True):
            colour, width, alpha = (SERIES[0], 1.2, 0.9) if rank < len(trials) // 10 else (MUTED, 0.7, 0.3)
            if rank == 0:
                colour, width, alpha = BEST_COLOUR, 2.2, 0.9
            axes.plot(line, color=colour, linewidth=width, alpha=alpha, rasterized=len(trials) > 100)
        axes.set_xticks(range(len(verticals)), [*short_names(names), search.metrics[0].axis])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlim(-0.1, len(names) + 0.35)

    names_of = {"best trial": BEST_COLOUR, "best tenth": SERIES[0], "other trials": MUTED}
    entries = [Entry(name, Style(colour)) for name, colour in names_of.items()]
    return render_picture("optuna_parallel", "Optuna: trials across parameters", draw, entries, size=(FULL, HEIGHT))


def focus(axes: "Axes", values: list[float], maximize: bool) -> None:
    """Cut off values far worse than the rest: one trial that diverged would flatten all others."""
    best, middle = (max if maximize else min)(values), statistics.median(values)
    limit = best + 4 * (middle - best)
    beyond = sum(value < limit if maximize else value > limit for value in values)
    if beyond and limit != best:
        axes.set_ylim(*sorted((limit, best + 0.06 * (best - limit))))
        place: dict[str, Any] = {"y": 0.02, "va": "bottom"} if maximize else {"y": 0.98, "va": "top"}
        text = f"{beyond} further {'down' if maximize else 'up'}"
        axes.text(0.02, s=text, color=MUTED, fontsize=8, transform=axes.transAxes, **place)
