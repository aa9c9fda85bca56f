"""The runs below a folder, as far as they have come: read at any time, also while they train.

A file that is missing, half written or broken makes a run with less to show, never an error.
"""

import math
import operator
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iolaus.files import locks
from iolaus.files.atomic import read_json
from iolaus.files.changes import FREE_KEYS, find_changes, to_dotted_keys
from iolaus.files.layout import DONE, FAILED, FINISHED, HYDRA, LOCK, METRICS, PRUNED, RESULT_COLUMNS, RESULTS
from iolaus.methods.stopping import mode_of
from iolaus.report import parsing
from iolaus.report.defaults import fill_settings
from iolaus.show.tables import clean_text

RUNNING, UNFINISHED = "running", "unfinished"
STATUSES = (FINISHED, PRUNED, FAILED, RUNNING, UNFINISHED)
MOST_ROWS = 20  # of a table that shows the best runs; results.csv has all
NOT_A_CHOICE = ("study", "resume")  # where a run is written, not what it is
# where the data lie, and how closely and for how long a run is watched: nothing of what is measured
NOT_MEASURED = (
    "dataset.root",
    "dataset.download",
    "trainer.monitor_every",
    "trainer.log_every",
    "trainer.max_minutes",
    "trainer.checkpoint_every",
)
REPEATS = {"seed": "seed", "dataset.fold": "fold"}  # keys that repeat a configuration: its numbers become mean ± std
DEFAULT_OBJECTIVE = "val/accuracy"
QUIET_SECONDS = 600  # a run of another machine has ended if it wrote nothing for so long, or for three epochs


@dataclass(frozen=True)
class Run:
    """One run: its folder, settings, status, history and numbers."""

    folder: Path
    name: str  # the folder, relative to the study's
    overrides: dict[str, str]  # by key, as they were typed: `+key=value`
    settings: dict[str, str]  # the values alone; in a study also those that others were given and this one has
    status: str
    error: str | None
    result: dict[str, Any]  # results.json; empty without one
    history: list[dict[str, float]]
    numbers: dict[str, float]  # see `collect_numbers`

    def points(self, metric: str) -> list[tuple[int, float]]:
        """(epoch counted from 1, value) wherever the metric is a finite number."""
        return [(int(e["epoch"]) + 1, e[metric]) for e in self.history if math.isfinite(e.get(metric, math.nan))]

    @property
    def repeat(self) -> str:
        """What tells the run from the others of its configuration: its seed and fold, or its folder's name."""
        return "/".join(self.settings.get(key, "null") for key in REPEATS) if "seed" in self.settings else self.name


@dataclass(frozen=True)
class Study:
    """The runs of a folder, the keys in which they differ, and the objectives by which they are compared."""

    folder: Path
    runs: list[Run]
    varied: list[str]  # keys that differ between the runs; those of REPEATS are the last
    objectives: list[str]  # several in a search; the first ranks the runs
    storage: str | None = None  # the URL of a search's storage, as the user gives it
    name: str = ""  # of the dataset, in a report of several groups

    @property
    def objective(self) -> str:
        return self.objectives[0]

    @property
    def maximize(self) -> bool:
        return mode_of(self.objective) == "max"

    def objective_value(self, run: Run) -> float:
        """The objective at a run's last epoch; NaN if there is none."""
        return run.numbers.get(self.objective, math.nan)

    def order(self, value: float) -> float:
        """A sort key for values of the objective: the best first, NaN last."""
        return math.inf if math.isnan(value) else -value if self.maximize else value

    @property
    def keys(self) -> list[str]:
        """The varied keys without seed and fold."""
        return [key for key in self.varied if key not in REPEATS]


def read_study(folder: Path, known: dict[Path, Run] | None = None) -> Study:
    """All runs below `folder`, at any depth. Raises ValueError, one line, where there is no folder or no run.

    known: finished and pruned runs by folder, which are not read again; those found now are added.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    known = {} if known is None else known
    found = (known.get(path) or read_run(path, folder) for path in run_folders(folder))
    runs = [run for run in found if run is not None]
    known |= {run.folder: run for run in runs if run.status in DONE}
    if not runs:
        raise ValueError(f"{folder}: holds no run (a folder with .hydra/ or results.json in it)")
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in NOT_A_CHOICE)
    runs = fill_settings(runs, dict.fromkeys([*keys, *REPEATS]))
    names = Counter(tuple(parsing.read_objectives(run.result)) or (DEFAULT_OBJECTIVE,) for run in runs if run.result)
    objectives = names.most_common(1)[0][0] if names else (DEFAULT_OBJECTIVE,)
    add_hidden_settings(runs)
    return Study(folder, runs, varied_keys(runs), list(objectives))


def run_folders(folder: Path) -> list[Path]:
    """The folders that look like a run's, in natural order: 2 before 10."""
    found = []
    for path, folders, files in os.walk(folder):
        if HYDRA in folders or RESULTS in files or METRICS in files:
            found.append(Path(path))
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(found, key=lambda path: [natural_key(part) for part in path.parts])


def read_run(folder: Path, study: Path) -> Run | None:
    """A run as its folder shows it; None where the files are another program's."""
    is_alive = locks.is_locked_here(folder / LOCK)  # before its results, which a run writes before it lets go
    result = read_json(folder / RESULTS)
    history = parsing.clean_history(result.get("history")) or parsing.read_history(folder)
    if not (folder / HYDRA).is_dir() and not history and "status" not in result:
        return None
    parts = [(line, *line.lstrip("+~").partition("=")[::2]) for line in parsing.read_overrides(folder)]
    status = parsing.text_in(result.get("status"))
    if not status:
        is_alive = has_written_lately(folder, history) if is_alive is None else is_alive
        status = RUNNING if is_alive else UNFINISHED
    return Run(
        folder=folder,
        name=clean_text(folder.relative_to(study).as_posix()),
        overrides={key: line for line, key, _ in parts},
        settings={key: "removed" if line.startswith("~") else value for line, key, value in parts},
        status=status,
        error=parsing.text_in(result.get("error")).strip() or None,
        result=result,
        history=history,
        numbers=collect_numbers(result, history),
    )


def collect_numbers(result: dict[str, Any], history: list[dict[str, float]]) -> dict[str, float]:
    """The numbers of a run by name: metrics such as `val/accuracy` and objectives, both at the last epoch, and those
    of results.json, minutes and peak_memory_mib. For a running run they are computed from its epochs so far.
    """

    def finite(name: str) -> list[float]:
        return [epoch[name] for epoch in history if math.isfinite(epoch.get(name, math.nan))]

    last = (history[-1] if history else {}) | parsing.numbers_in(parsing.get_nested(result, "metrics", "last"))
    numbers = {name: value for name, value in last.items() if "/" in name} | {"epochs": float(len(history))}
    seconds, speeds = finite("seconds"), finite("images_per_second")
    if seconds:
        numbers["seconds"] = sum(seconds)
    if sum(seconds) and len(seconds) == len(speeds):
        numbers["images_per_second"] = sum(map(operator.mul, seconds, speeds)) / sum(seconds)
    for column in RESULT_COLUMNS:
        _, split, name = column.split("_")
        if values := finite(f"{split}/{name}"):
            numbers[column] = (max if name == "accuracy" else min)(values)
    hardware = {f"hardware/{name}": v for name, v in parsing.numbers_in(result.get("hardware")).items()}
    metrics = parsing.numbers_in(parsing.read_objectives(result))  # NaN, unlike the others, where training diverged
    costs = {name: value for name, value in metrics.items() if "/" not in name}
    measured = parsing.numbers_in(result) | hardware | costs
    numbers |= {name: v for name, v in measured.items() if name in RESULT_COLUMNS or math.isfinite(v)}
    if "seconds" in numbers:
        numbers["minutes"] = numbers["seconds"] / 60
    if "peak_memory_bytes" in numbers:
        numbers["peak_memory_mib"] = numbers["peak_memory_bytes"] / 2**20
    return numbers | {name: value for name, value in metrics.items() if "/" in name}


def has_written_lately(folder: Path, history: list[dict[str, float]]) -> bool:
    """Whether a file in the folder of a run has changed lately."""
    epoch = history[-1].get("seconds", 0.0) if history else 0.0
    try:
        latest = max((entry.stat().st_mtime for entry in os.scandir(folder)), default=0.0)
    except OSError:  # a temporary file that was just renamed
        return True
    return time.time() - latest < max(QUIET_SECONDS, 3 * epoch)


def is_choice(key: str) -> bool:
    """Whether a key can change what is measured."""
    return key not in (*NOT_A_CHOICE, *NOT_MEASURED) and key.split(".")[0] != "tracker"


def varied_keys(runs: list[Run]) -> list[str]:
    """The keys whose values differ, in the order in which they were typed, seed and fold last."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if is_choice(key))
    varied = [key for key in keys if len({run.settings.get(key, "null") for run in runs}) > 1]
    return sorted(varied, key=lambda key: key in REPEATS)


def add_hidden_settings(runs: list[Run]) -> None:
    """Show the keys in which runs of the same overrides differ all the same, since a file was edited between them."""
    configs = {
        run.folder: to_dotted_keys(config) for run in runs if isinstance(config := run.result.get("config"), dict)
    }
    alike: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        if run.folder in configs:
            alike.setdefault(tuple(sorted((k, v) for k, v in run.settings.items() if k != "seed")), []).append(run)
    hidden = dict.fromkeys(
        key
        for first, *others in alike.values()
        for run in others
        for key in find_changes(configs[first.folder], configs[run.folder], (*FREE_KEYS, "seed"))
    )
    for key in hidden:
        for run in (run for run in runs if key in configs.get(run.folder, {})):
            run.settings.setdefault(clean_text(key), clean_text(str(configs[run.folder][key])))


def short_names(keys: Sequence[str]) -> list[str]:
    """`optimizer.lr` becomes `lr` wherever no other key ends in the same word."""
    leaves = [key.rsplit(".", 1)[-1] for key in keys]
    return [leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)]


def format_counts(statuses: Mapping[str, int]) -> str:
    """`8 finished, 1 failed`"""
    ordered = sorted(statuses, key=lambda name: STATUSES.index(name) if name in STATUSES else len(STATUSES))
    return ", ".join(f"{statuses[name]} {name}" for name in ordered)


def natural_key(value: str) -> tuple[int, float, str]:
    """A sort key: numbers by size, then words."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
