"""Pictures of a search by Optuna: how it went, what matters, which values are good.

Drawn here rather than by `optuna.visualization.matplotlib`, which changes pyplot's settings for the whole process and
cuts off long names.
"""

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from iolaus.report.drawing import BEST_COLOUR, HEIGHT, MUTED, SERIES, WIDTH, Entry, Picture, Style, logarithmic, picture
from iolaus.report.trials import Search

FULL = 2 * WIDTH
PANELS = 4  # slices side by side
MOST_AXES = 9  # parallel ones


def search_pictures(search: Search) -> tuple[list[Picture], list[str]]:
    """The pictures that there are trials for, and a line about each that is left out. None disturbs another."""
    if not search.complete:
        return [], []
    drawings: dict[str, Callable[[], Picture]] = {}
    if len(search.names) > 1:
        drawings["the Pareto front"] = partial(draw_pareto, search)
    for i, name in enumerate(search.names):
        drawings[f"the history of {name}"] = partial(draw_history, search, i)
        drawings[f"importances for {name}"] = partial(draw_importances, search, i)
    drawings |= {"slices": partial(draw_slices, search), "parallel coordinates": partial(draw_parallel, search)}
    drawn, notes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks much of itself as experimental
        for what, draw in drawings.items():
            try:
                drawn.append(draw())
            except Exception as error:  # Optuna's evaluator has several, for one trial, a space that changes, …
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                notes.append(f"Left out: {what} ({reason.rstrip('.')}).")
    return drawn, notes


def scaled(search: Search, trial: Any, i: int = 0) -> float:
    """An objective of a complete trial, as it is drawn: accuracies in percent."""
    return trial.values[i] * (100 if search.names[i].endswith("accuracy") else 1)


def label(search: Search, i: int = 0) -> str:
    return search.names[i].replace("/", " ") + (", %" if search.names[i].endswith("accuracy") else "")


def draw_history(search: Search, i: int) -> Picture:
    """The objective of each trial, the best so far as a line, and where the pruned ones were cut off."""
    done = search.complete
    cut = [t for t in search.trials if t.state.name == "PRUNED" and t.intermediate_values]
    better = max if search.maximize[i] else min
    factor = 100 if search.names[i].endswith("accuracy") else 1

    def draw(axes: Any) -> None:
        lasts = [factor * t.intermediate_values[max(t.intermediate_values)] for t in cut]
        axes.plot([t.number for t in cut], lasts, "x", color=MUTED, markersize=4, alpha=0.6)
        values = [scaled(search, t, i) for t in done]
        axes.plot([t.number for t in done], values, "o", color=SERIES[0], markersize=4.5, markeredgewidth=0, alpha=0.7)
        best = list(accumulate(values, better))
        axes.step([t.number for t in done], best, where="post", color=BEST_COLOUR, linewidth=1.6)
        axes.set_xlabel("trial")
        axes.set_ylabel(label(search, i))
        focus(axes, [*values, *lasts], search.maximize[i])

    entries = [Entry("complete", Style(), "o"), Entry("best so far", Style(BEST_COLOUR))]
    entries += [Entry("pruned, at its last epoch", Style(MUTED), "x")] if cut else []
    return picture(
        f"optuna_history_{i}" if i else "optuna_history",
        f"Optuna: {search.names[i].replace('/', ' ')} by trial",
        draw,
        entries,
    )


def draw_importances(search: Search, i: int) -> Picture:
    """The share of the objective's variance that each parameter explains, as Optuna's default evaluator finds it."""
    import optuna

    if len(search.complete) < 2:
        raise ValueError("they take two finished trials")
    found = optuna.importance.get_param_importances(search.study, target=lambda trial: trial.values[i])
    if not found:
        raise ValueError("no parameter was varied")
    names, shares = list(found)[:10], list(found.values())[:10]

    def draw(axes: Any) -> None:
        axes.barh(range(len(names)), [100 * share for share in shares], height=0.34, color=SERIES[0])
        for row, (name, share) in enumerate(zip(names, shares, strict=True)):  # above its bar: names are long
            axes.text(0, row - 0.26, f"{name}  {100 * share:.0f} %", va="bottom", fontsize=9)
        axes.set_ylim(len(names) - 0.5, -0.75)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share of the importance, %")

    return picture(
        f"optuna_importances_{i}" if i else "optuna_importances",
        f"Optuna: what matters for {search.names[i].replace('/', ' ')}",
        draw,
    )


def draw_slices(search: Search) -> Picture:
    """The first objective against each parameter by itself."""
    done = search.complete
    names = varied_parameters(done)
    rows = -(-len(names) // PANELS)
    columns = -(-len(names) // rows)

    def draw(panels: Any) -> None:
        for axes, name in zip(panels.flat, names, strict=False):
            having = [trial for trial in done if name in trial.params]
            values = [scaled(search, trial) for trial in having]
            places, ticks = positions(having, name)
            best = [trial in search.best for trial in having]
            for chosen, colour, size in ((False, SERIES[0], 4.5), (True, BEST_COLOUR, 7)):
                shown = [(x, y) for x, y, b in zip(places, values, best, strict=True) if b == chosen]
                axes.plot(*zip(*shown, strict=True) if shown else ((), ()), "o", color=colour, markersize=size,
                          markeredgewidth=0, alpha=1.0 if chosen else 0.6)  # fmt: skip
            axes.set_xlabel(name if len(name) <= 26 else f"…{name[-25:]}")
            scale(axes, having[0].distributions[name], ticks)
            focus(axes, values, search.maximize[0])
        for axes in panels.flat[len(names) :]:
            axes.set_visible(False)
        for row in panels:
            row[0].set_ylabel(label(search))

    size = (FULL if columns > 2 else WIDTH, 0.6 + 2.5 * rows)
    return picture(
        "optuna_slices",
        f"Optuna: {search.names[0].replace('/', ' ')} by parameter",
        draw,
        size=size,
        panels=(rows, columns),
    )


def scale(axes: Any, distribution: Any, ticks: dict[float, str]) -> None:
    """The x axis of a slice: the parameter's own scale, or its categories by name."""
    if ticks:
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set_xlim(min(ticks) - 0.5, max(ticks) + 0.5)
        if max(map(len, ticks.values())) * len(ticks) > 24:
            axes.tick_params(axis="x", rotation=20)
    elif distribution.log:
        logarithmic(axes.xaxis)


def draw_parallel(search: Search) -> Picture:
    """Each trial as a line through its parameters to its objective; the best tenth stands out."""
    done = search.complete
    names = varied_parameters(done)[:MOST_AXES]
    whole = [trial for trial in done if all(name in trial.params for name in names)]
    if len(names) < 2 or len(whole) < 2:
        raise ValueError("they take two parameters, and two trials that have all of them")
    whole.sort(key=lambda trial: trial.values[0], reverse=not search.maximize[0])  # the best last, on top
    columns, ticks = zip(
        *(heights(*positions(whole, name), whole[0].distributions[name]) for name in names), strict=True
    )
    objective, marks = heights([scaled(search, trial) for trial in whole], {}, None)
    top = max(1, len(whole) // 10)

    def draw(axes: Any) -> None:
        for row, line in enumerate(zip(*columns, objective, strict=True)):
            rank = len(whole) - row
            colour, width, alpha = (MUTED, 0.7, 0.3) if rank > top else (SERIES[0], 1.2, 0.9)
            if rank == 1:
                colour, width = BEST_COLOUR, 2.2
            axes.plot(range(len(line)), line, color=colour, linewidth=width, alpha=alpha, rasterized=len(whole) > 100)
        for x, marked in enumerate((*ticks, marks)):
            axes.axvline(x, color=MUTED, linewidth=0.8)
            for y, text in marked.items():
                axes.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.set_xticks(range(len(names) + 1), [*names, label(search)])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlim(-0.1, len(names) + 0.35)

    entries = [
        Entry("best trial", Style(BEST_COLOUR)),
        Entry("best tenth", Style()),
        Entry("other trials", Style(MUTED)),
    ]
    return picture("optuna_parallel", "Optuna: trials across parameters", draw, entries, size=(FULL, HEIGHT))


def draw_pareto(search: Search) -> Picture:
    """Two objectives against each other; the trials that no other one beats in both are joined."""
    if len(search.names) != 2:
        raise ValueError(f"{len(search.names)} objectives, and a picture has two axes")
    done = search.complete
    front = sorted([scaled(search, trial, 0), scaled(search, trial, 1)] for trial in search.best)

    def draw(axes: Any) -> None:
        axes.plot([scaled(search, t, 0) for t in done], [scaled(search, t, 1) for t in done], "o", color=SERIES[0],
                  markersize=5, markeredgewidth=0, alpha=0.5)  # fmt: skip
        axes.plot(*zip(*front, strict=True), "o-", color=BEST_COLOUR, markersize=6, linewidth=1.2)
        axes.set_xlabel(label(search, 0))
        axes.set_ylabel(label(search, 1))

    entries = [Entry("trial", Style(), "o"), Entry("Pareto front", Style(BEST_COLOUR))]
    return picture("optuna_pareto", "Optuna: Pareto front", draw, entries, size=(FULL, HEIGHT))


def varied_parameters(done: Sequence[Any]) -> list[str]:
    """The parameters with more than one value. Raises ValueError where there is none."""
    names = dict.fromkeys(name for trial in done for name in trial.params)
    varied = [name for name in names if len({str(t.params[name]) for t in done if name in t.params}) > 1]
    if not varied:
        raise ValueError("no parameter has more than one value yet")
    return varied


def positions(trials: Sequence[Any], name: str) -> tuple[list[float], dict[float, str]]:
    """A parameter's values as numbers; for a categorical one its choices' places, with their names."""
    values = [trial.params[name] for trial in trials]
    choices = getattr(trials[0].distributions[name], "choices", None)
    if choices is None:
        return [float(value) for value in values], {}
    return [float(choices.index(value)) for value in values], {float(i): str(c) for i, c in enumerate(choices)}


def heights(values: list[float], names: dict[float, str], distribution: Any) -> tuple[list[float], dict[float, str]]:
    """Values as heights between 0 and 1 on an axis of their own, and what is written at some heights."""
    log = getattr(distribution, "log", False)
    turned = [math.log(value) for value in values] if log else values
    marks = list(names) or [min(turned), (min(turned) + max(turned)) / 2, max(turned)]
    low, width = min(marks), max(marks) - min(marks) or 1.0
    texts = list(names.values()) or [f"{math.exp(mark) if log else mark:.3g}" for mark in marks]
    return [(v - low) / width for v in turned], {(m - low) / width: t for m, t in zip(marks, texts, strict=True)}


def focus(axes: Any, values: Sequence[float], maximize: bool) -> None:
    """Leave out what is far worse than the rest: one trial that diverged would flatten all others."""
    best, middle = (max if maximize else min)(values), statistics.median(values)
    limit = best + 4 * (middle - best)
    beyond = sum(value < limit if maximize else value > limit for value in values)
    if beyond and limit != best:
        axes.set_ylim(*sorted((limit, best + 0.06 * (best - limit))))
        place = {"y": 0.02, "va": "bottom"} if maximize else {"y": 0.98, "va": "top"}
        text = f"{beyond} further {'down' if maximize else 'up'}"
        axes.text(0.02, s=text, color=MUTED, fontsize=8, transform=axes.transAxes, **place)
