"""What the runs below a folder have left so far.

Read at any time, also while they train: a file that is missing, half written or broken makes a run with less to show,
never an error. Configurations are plain YAML here, so that a report needs neither Hydra nor torch.
"""

import contextlib
import json
import math
import operator
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from iolaus import locks
from iolaus.checkpoint import COLUMNS, DONE, FAILED, FINISHED, LOCK, METRICS, PRUNED, RESULTS, read_json
from iolaus.stopping import mode_of

RUNNING, UNFINISHED = "running", "unfinished"
STATUSES = (FINISHED, PRUNED, FAILED, RUNNING, UNFINISHED)
NOT_A_CHOICE = ("study", "resume")  # where a run is written, not what it is
QUIET_SECONDS = 600  # a run of another machine that has written nothing for so long, or for three epochs, has ended
# libyaml's loader, where PyYAML has it: ten times as fast
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Run:
    """One run: where it is, what was chosen, how far it came, and what it measured."""

    folder: Path
    name: str  # the folder, relative to the study's
    overrides: dict[str, str]  # by key, as they were typed: `+key=value`
    settings: dict[str, str]  # the values alone
    status: str
    error: str | None
    result: dict[str, Any]  # results.json; empty without one
    history: list[dict[str, float]]
    numbers: dict[str, float]  # all that was measured; see `numbers_of`

    def points(self, metric: str) -> list[tuple[int, float]]:
        """(epoch counted from 1, value) wherever the metric is a finite number."""
        return [(int(e["epoch"]) + 1, e[metric]) for e in self.history if math.isfinite(e.get(metric, math.nan))]


@dataclass(frozen=True)
class Study:
    """The runs of a folder, and by what they are told apart and compared."""

    folder: Path
    runs: list[Run]
    varied: list[str]  # keys that differ between the runs; the seed is the last
    objectives: list[str]  # several in a search; the first ranks the runs

    @property
    def objective(self) -> str:
        return self.objectives[0]

    @property
    def maximize(self) -> bool:
        return mode_of(self.objective) == "max"

    def reached(self, run: Run) -> float:
        """The objective at a run's last epoch; nan without one."""
        return run.numbers.get(self.objective, math.nan)

    def order(self, value: float) -> float:
        """A sort key for values of the objective: the best first, one that is no number last."""
        return math.inf if math.isnan(value) else -value if self.maximize else value

    @property
    def keys(self) -> list[str]:
        """What was varied, the seed apart."""
        return [key for key in self.varied if key != "seed"]


def read_study(folder: Path, known: dict[Path, Run] | None = None) -> Study:
    """All runs below `folder`, at any depth. Raises ValueError, one line, where there is no folder or no run.

    known: runs by folder that need not be read again, since they are over; the ones that are now are put into it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    known = {} if known is None else known
    found = (known.get(path) or read_run(path, folder) for path in run_folders(folder))
    runs = [run for run in found if run is not None]
    known |= {run.folder: run for run in runs if run.status in DONE}
    if not runs:
        raise ValueError(f"{folder}: holds no run (a folder with .hydra/ or results.json in it)")
    names = Counter(tuple(objectives_of(run.result)) or ("val/accuracy",) for run in runs if run.result)
    objectives = names.most_common(1)[0][0] if names else ("val/accuracy",)
    return Study(folder, runs, varied_keys(runs), list(objectives))


def run_folders(folder: Path) -> list[Path]:
    """The folders that look like a run's, in natural order: 2 before 10."""
    found = []
    for path, folders, files in os.walk(folder):
        if ".hydra" in folders or RESULTS in files or METRICS in files:
            found.append(Path(path))
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(found, key=lambda path: [natural(part) for part in path.parts])


def read_run(folder: Path, study: Path) -> Run | None:
    """A run as its folder shows it; None where the files are another program's."""
    at_work = locks.is_held_here(folder / LOCK)  # before its results, which a run writes before it lets go
    content: Any = read_json(folder / RESULTS)
    result = content if isinstance(content, dict) else {}
    history = clean_history(result.get("history")) or clean_history(read_lines(folder / METRICS))
    if not (folder / ".hydra").is_dir() and not history and "status" not in result:
        return None
    typed = read_yaml(folder / ".hydra" / "overrides.yaml")
    lines = [str(line) for line in typed] if isinstance(typed, list) else []
    parts = [(line, *line.lstrip("+~").partition("=")[::2]) for line in lines]
    status, error = result.get("status"), result.get("error")
    if not isinstance(status, str):
        at_work = has_written(folder, history) if at_work is None else at_work
        status = RUNNING if at_work else UNFINISHED
    return Run(
        folder=folder,
        name=folder.relative_to(study).as_posix(),
        overrides={key: line for line, key, _ in parts},
        settings={key: "removed" if line.startswith("~") else value for line, key, value in parts},
        status=status,
        error=None if error is None else str(error),
        result=result,
        history=history,
        numbers=numbers_of(result, history),
    )


def numbers_of(result: dict[str, Any], history: list[dict[str, float]]) -> dict[str, float]:
    """The numbers of a run by name: metrics such as `val/accuracy` and objectives, both at the last epoch, and those
    of results.json, minutes and peak_memory_mib. A run at work has what its epochs so far make of them.
    """

    def each(name: str) -> list[float]:
        return [epoch[name] for epoch in history if math.isfinite(epoch.get(name, math.nan))]

    last = (history[-1] if history else {}) | numeric(inside(result, "metrics", "last"))
    numbers = {name: value for name, value in last.items() if "/" in name} | {"epochs": len(history)}
    seconds, speeds = each("seconds"), each("images_per_second")
    if seconds:
        numbers["seconds"] = sum(seconds)
    if sum(seconds) and len(seconds) == len(speeds):
        numbers["images_per_second"] = sum(map(operator.mul, seconds, speeds)) / sum(seconds)
    for column in COLUMNS:
        _, split, name = column.split("_")
        if values := each(f"{split}/{name}"):
            numbers[column] = (max if name == "accuracy" else min)(values)
    numbers |= {name: v for name, v in numeric(result).items() if name in COLUMNS or math.isfinite(v)}
    if "seconds" in numbers:
        numbers["minutes"] = numbers["seconds"] / 60
    if "peak_memory_bytes" in numbers:
        numbers["peak_memory_mib"] = numbers["peak_memory_bytes"] / 2**20
    return numbers | numeric(objectives_of(result))


def objectives_of(result: dict[str, Any]) -> dict[str, Any]:
    """The objectives of a run by name, the first first."""
    several = result.get("objectives")
    found = several if isinstance(several, list) else [result.get("objective")]
    return {o["name"]: o.get("value") for o in found if isinstance(o, dict) and isinstance(o.get("name"), str)}


def clean_history(entries: Any) -> list[dict[str, float]]:
    """The numbers of the entries that are an epoch's, in order, each epoch once."""
    numbers = map(numeric, entries) if isinstance(entries, list) else []
    epochs = {int(entry["epoch"]): entry for entry in numbers if math.isfinite(entry.get("epoch", math.nan))}
    return [entry for _, entry in sorted(epochs.items())]


def read_lines(path: Path) -> list[Any]:
    """The entries of a metrics.jsonl."""
    entries = []
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # the last line may be half written
                entries.append(json.loads(line))
    return entries


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; None where it is missing or broken."""
    try:
        return yaml.load(path.read_text(), Loader=LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def has_written(folder: Path, history: list[dict[str, float]]) -> bool:
    """Whether something was written lately into the folder of a run."""
    epoch = history[-1].get("seconds", 0.0) if history else 0.0
    try:
        latest = max((entry.stat().st_mtime for entry in os.scandir(folder)), default=0.0)
    except OSError:  # a temporary file that was just renamed
        return True
    return time.time() - latest < max(QUIET_SECONDS, 3 * epoch)


def varied_keys(runs: list[Run]) -> list[str]:
    """The keys whose values differ, in the order in which they were typed, the seed last."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in NOT_A_CHOICE)
    varied = [key for key in keys if len({run.settings.get(key) for run in runs}) > 1]
    return sorted(varied, key=lambda key: key == "seed")


def short_names(keys: Sequence[str]) -> list[str]:
    """`optimizer.lr` becomes `lr` wherever no other key ends in the same word."""
    leaves = [key.rsplit(".", 1)[-1] for key in keys]
    return [leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)]


def counted(statuses: Mapping[str, int]) -> str:
    """`8 finished, 1 failed`"""
    ordered = sorted(statuses, key=lambda name: STATUSES.index(name) if name in STATUSES else len(STATUSES))
    return ", ".join(f"{statuses[name]} {name}" for name in ordered)


def natural(value: str) -> tuple[int, float, str]:
    """A sort key: numbers by size, then words."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value


def numeric(node: Any) -> dict[str, float]:
    """The numbers in what may be a JSON object."""
    items = node.items() if isinstance(node, dict) else ()
    return {key: float(v) for key, v in items if isinstance(v, int | float) and not isinstance(v, bool)}


def inside(node: Any, *keys: str) -> Any:
    """`node[key][key]…`; None where one is missing or holds no keys."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node
