"""Pictures of a search by Optuna: how it went, what matters, which values are good.

Drawn here rather than by `optuna.visualization.matplotlib`, which changes pyplot's settings for the whole process and
cuts off long names.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from iolaus.report.drawing import BEST_COLOUR, FULL, HEIGHT, MUTED, SERIES, WIDTH, Entry, Picture, Style, picture
from iolaus.report.runs import short_names
from iolaus.report.search import Search

PANELS = 4  # slices side by side
MOST_AXES = 9  # parallel ones
ROOM_FOR_TICKS = 34  # letters below a slice


def search_pictures(search: Search) -> tuple[list[Picture], list[str]]:
    """The pictures that there are trials for, and a line about each that is left out. None disturbs another."""
    if not search.complete:
        return [], ["No trial is complete yet: there is nothing to plot."]
    drawings: dict[str, Callable[[], Picture]] = {}
    if len(search.names) > 1:
        drawings["the Pareto front"] = partial(draw_pareto, search)
    for i, name in enumerate(search.names):
        drawings[f"the history of {name}"] = partial(draw_history, search, i)
        drawings[f"importances for {name}"] = partial(draw_importances, search, i)
    drawings |= {"slices": partial(draw_slices, search), "parallel coordinates": partial(draw_parallel, search)}
    drawn, notes = [], []
    for what, draw in drawings.items():
        try:
            drawn.append(draw())
        except Exception as error:  # Optuna's evaluator has several, for one trial, a space that changes, …
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            notes.append(f"Left out: {what} ({reason.rstrip('.')}).")
    return drawn, notes


def objective(search: Search, trials: Sequence[Any], i: int = 0) -> list[float]:
    """One of the objectives of some trials, accuracies in percent."""
    return search.measures[i].scaled(trial.values[i] for trial in trials)


def draw_history(search: Search, i: int) -> Picture:
    """The objective of each trial, the best so far as a line, and where the pruned ones were cut off."""
    measure, values = search.measures[i], objective(search, search.complete, i)
    numbers = [trial.number for trial in search.complete]
    best = list(accumulate(values, max if search.maximize[i] else min))
    cut = [t for t in search.trials if t.state.name == "PRUNED" and t.intermediate_values]
    lasts = measure.scaled(trial.intermediate_values[max(trial.intermediate_values)] for trial in cut)

    def draw(axes: Any) -> None:
        axes.plot([t.number for t in cut], lasts, "x", color=MUTED, markersize=4, alpha=0.6)
        axes.plot(numbers, values, "o", color=SERIES[0], markersize=4.5, markeredgewidth=0, alpha=0.7)
        axes.step(numbers, best, where="post", color=BEST_COLOUR, linewidth=1.6)
        axes.set_xlabel("trial")
        axes.set_ylabel(measure.axis)
        focus(axes, [*values, *lasts], search.maximize[i])

    entries = [Entry("complete", Style(), "o"), Entry("best so far", Style(BEST_COLOUR))]
    entries += [Entry("pruned, at its last epoch", Style(MUTED), "x")] if cut else []
    return picture("optuna_history" + (f"_{i}" if i else ""), f"Optuna: {measure.word} by trial", draw, entries)


def draw_importances(search: Search, i: int) -> Picture:
    """The share of the objective's variance that each parameter explains, as Optuna's default evaluator finds it."""
    import optuna

    if len(search.complete) < 2:
        raise ValueError("they take two finished trials")
    found = optuna.importance.get_param_importances(search.study, target=lambda trial: trial.values[i])
    if not found:
        raise ValueError("no parameter was varied")
    names, shares = list(found)[:10], [100 * share for share in found.values()][:10]

    def draw(axes: Any) -> None:
        axes.barh(range(len(names)), shares, height=0.34, color=SERIES[0])
        for row, (name, share) in enumerate(zip(names, shares, strict=True)):  # above its bar: names are long
            axes.text(0, row - 0.26, f"{name}  {share:.0f} %", va="bottom", fontsize=9)
        axes.set_ylim(len(names) - 0.5, -0.75)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share of the importance, %")

    title = f"Optuna: what matters for {search.measures[i].word}"
    return picture("optuna_importances" + (f"_{i}" if i else ""), title, draw)


def draw_pareto(search: Search) -> Picture:
    """Two objectives against each other; the trials that no other one beats in both are joined."""
    if len(search.names) != 2:
        raise ValueError(f"{len(search.names)} objectives, and a picture has two axes")
    front = sorted(zip(*(objective(search, search.best, i) for i in (0, 1)), strict=True))

    def draw(axes: Any) -> None:
        axes.plot(*(objective(search, search.complete, i) for i in (0, 1)), "o", color=SERIES[0], markersize=5,
                  markeredgewidth=0, alpha=0.5)  # fmt: skip
        axes.plot(*zip(*front, strict=True), "o-", color=BEST_COLOUR, markersize=6, linewidth=1.2)
        axes.set_xlabel(search.measures[0].axis)
        axes.set_ylabel(search.measures[1].axis)

    entries = [Entry("trial", Style(), "o"), Entry("Pareto front", Style(BEST_COLOUR))]
    return picture("optuna_pareto", "Optuna: Pareto front", draw, entries, size=(FULL, HEIGHT))


def varied_parameters(done: Sequence[Any]) -> list[str]:
    """The parameters with more than one value. Raises ValueError where there is none."""
    names = dict.fromkeys(name for trial in done for name in trial.params)
    varied = [name for name in names if len({str(t.params[name]) for t in done if name in t.params}) > 1]
    if not varied:
        raise ValueError("no parameter has more than one value yet")
    return varied


def on_axis(name: str, trials: Sequence[Any]) -> tuple[np.ndarray, dict[float, str]]:
    """Where each trial lies on the axis of a parameter, and what is written where: choices, or three numbers.

    Logarithms where the search space is logarithmic; of a categorical parameter the numbers of its choices.
    """
    distribution, values = trials[0].distributions[name], [trial.params[name] for trial in trials]
    if hasattr(distribution, "choices"):
        choices = {float(i): str(choice) for i, choice in enumerate(distribution.choices)}
        return np.array([distribution.choices.index(value) for value in values], float), choices
    places = np.log(values) if distribution.log else np.array(values, float)
    return places, three_marks(places, np.exp if distribution.log else float)


def three_marks(places: np.ndarray, back: Callable[[float], float]) -> dict[float, str]:
    """The least, the middle and the largest."""
    return {float(mark): f"{back(mark):.3g}" for mark in np.linspace(places.min(), places.max(), 3)}


def draw_slices(search: Search) -> Picture:
    """The first objective against each parameter by itself."""
    names = varied_parameters(search.complete)
    rows = -(-len(names) // PANELS)
    columns = -(-len(names) // rows)

    def draw(panels: Any) -> None:
        for axes, name, word in zip(panels.flat, names, short_names(names), strict=False):
            trials = [trial for trial in search.complete if name in trial.params]
            (at, ticks), values = on_axis(name, trials), np.array(objective(search, trials))
            best = np.isin([trial.number for trial in trials], [trial.number for trial in search.best])
            for shown, colour, size, alpha in ((~best, SERIES[0], 4.5, 0.6), (best, BEST_COLOUR, 7, 1.0)):
                axes.scatter(at[shown], values[shown], size**2, colour, linewidths=0, alpha=alpha)
            axes.set_xlabel(word)
            letters = sum(map(len, ticks.values()))
            longest = max(4, ROOM_FOR_TICKS // len(ticks)) if letters > ROOM_FOR_TICKS else letters
            texts = [text if len(text) <= longest else f"{text[: longest - 1]}…" for text in ticks.values()]
            axes.set_xticks(list(ticks), texts, fontsize=9 if letters <= 24 else 7.5)
            margin = 0.15 * (max(ticks) - min(ticks))
            axes.set_xlim(min(ticks) - margin, max(ticks) + margin)
            focus(axes, values.tolist(), search.maximize[0])
        for axes in panels.flat[len(names) :]:
            axes.set_visible(False)
        for row in panels:
            row[0].set_ylabel(search.measures[0].axis)

    title, size = f"Optuna: {search.measures[0].word} by parameter", (FULL if columns > 1 else WIDTH, 0.6 + 2.5 * rows)
    return picture("optuna_slices", title, draw, size=size, panels=(rows, columns))


def draw_parallel(search: Search) -> Picture:
    """Each trial as a line through its parameters to its objective; the best tenth stands out."""
    names = varied_parameters(search.complete)[:MOST_AXES]
    trials = [trial for trial in search.complete if all(name in trial.params for name in names)]
    if len(names) < 2 or len(trials) < 2:
        raise ValueError("they take two parameters, and two trials that have all of them")
    trials.sort(key=lambda trial: trial.values[0], reverse=not search.maximize[0])  # the best last, on top
    values = np.array(objective(search, trials))
    verticals = [*(on_axis(name, trials) for name in names), (values, three_marks(values, float))]

    def draw(axes: Any) -> None:
        heights = []
        for x, (at, ticks) in enumerate(verticals):
            low, width = min(ticks), max(ticks) - min(ticks) or 1.0
            heights.append((at - low) / width)
            axes.axvline(x, color=MUTED, linewidth=0.8)
            for mark, text in ticks.items():
                axes.annotate(text, (x, (mark - low) / width), xytext=(4, 0), textcoords="offset points", va="center",
                              fontsize=8.5)  # fmt: skip
        for rank, line in zip(range(len(trials) - 1, -1, -1), np.transpose(heights), strict=True):
            colour, width, alpha = (SERIES[0], 1.2, 0.9) if rank < len(trials) // 10 else (MUTED, 0.7, 0.3)
            if rank == 0:
                colour, width, alpha = BEST_COLOUR, 2.2, 0.9
            axes.plot(line, color=colour, linewidth=width, alpha=alpha, rasterized=len(trials) > 100)
        axes.set_xticks(range(len(verticals)), [*short_names(names), search.measures[0].axis])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlim(-0.1, len(names) + 0.35)

    names_of = {"best trial": BEST_COLOUR, "best tenth": SERIES[0], "other trials": MUTED}
    entries = [Entry(name, Style(colour)) for name, colour in names_of.items()]
    return picture("optuna_parallel", "Optuna: trials across parameters", draw, entries, size=(FULL, HEIGHT))


def focus(axes: Any, values: list[float], maximize: bool) -> None:
    """Leave out what is far worse than the rest: one trial that diverged would flatten all others."""
    best, middle = (max if maximize else min)(values), statistics.median(values)
    limit = best + 4 * (middle - best)
    beyond = sum(value < limit if maximize else value > limit for value in values)
    if beyond and limit != best:
        axes.set_ylim(*sorted((limit, best + 0.06 * (best - limit))))
        place = {"y": 0.02, "va": "bottom"} if maximize else {"y": 0.98, "va": "top"}
        text = f"{beyond} further {'down' if maximize else 'up'}"
        axes.text(0.02, s=text, color=MUTED, fontsize=8, transform=axes.transAxes, **place)
