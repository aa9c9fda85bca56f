"""What the runs below a folder have left so far.

Read at any time, also while they train: a file that is missing, half written or broken makes a run with less to show,
never an error. Configurations are plain YAML here, so that a report needs neither Hydra nor torch.
"""

import json
import math
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import yaml

from iolaus.checkpoint import METRICS, RESULTS, read_json
from iolaus.stopping import mode_of

FINISHED, PRUNED, FAILED, RUNNING, UNFINISHED = "finished", "pruned", "failed", "running", "unfinished"
STATUSES = (FINISHED, PRUNED, FAILED, RUNNING, UNFINISHED)
NOT_A_CHOICE = ("study", "resume")  # where a run is written, not what it is
QUIET_SECONDS = 600  # a run without results that has written nothing for so long, or for three epochs, has ended
# libyaml's loader, where PyYAML has it: ten times as fast
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Run:
    """One run: where it is, what was chosen, how far it came, and what it measured."""

    folder: Path
    name: str  # the folder, relative to the study's
    overrides: tuple[str, ...]  # as they were typed
    settings: dict[str, str]  # the same by key
    status: str
    error: str | None
    result: dict[str, Any]  # results.json; empty without one
    history: list[dict[str, Any]]

    def last(self, metric: str) -> float | None:
        """A metric such as `test/accuracy` at the last epoch."""
        value = number(inside(self.result, "metrics", "last", metric))
        return number(self.history[-1].get(metric)) if value is None and self.history else value

    def best(self, column: str) -> float | None:
        """One of checkpoint.COLUMNS. A run without results has the best of its epochs so far, and none for test."""
        value = number(self.result.get(column))
        if value is not None or not self.history:
            return value
        _, split, name = column.split("_")
        values = [number(entry.get(f"{split}/{name}")) for entry in self.history]
        finite = [v for v in values if v is not None and math.isfinite(v)]
        return (max if name == "accuracy" else min)(finite, default=None)

    def fact(self, name: str) -> float | None:
        """A finite number of results.json."""
        value = number(self.result.get(name), math.nan)
        return value if math.isfinite(value) else None

    @property
    def seconds(self) -> float | None:
        """Of all epochs, with their validation."""
        value = self.fact("seconds")
        if value is not None or not self.history:
            return value
        return sum(v for e in self.history if math.isfinite(v := number(e.get("seconds"), 0.0)))

    @property
    def minutes(self) -> float | None:
        return None if self.seconds is None else self.seconds / 60

    @property
    def epochs(self) -> float:
        epochs = self.fact("epochs")
        return len(self.history) if epochs is None else epochs

    @property
    def images_per_second(self) -> float | None:
        """Of the training steps, over all epochs."""
        value = self.fact("images_per_second")
        if value is not None:
            return value
        pairs = [(number(e.get("seconds")), number(e.get("images_per_second"))) for e in self.history]
        known = [(s, i) for s, i in pairs if s is not None and i is not None]
        seconds = sum(s for s, _ in known)
        return sum(s * i for s, i in known) / seconds if seconds else None

    @property
    def peak_memory(self) -> float | None:
        """MiB: of the GPU, or of the process on a CPU."""
        most = self.fact("peak_memory_bytes")
        return None if most is None else most / 2**20

    def points(self, metric: str) -> list[tuple[int, float]]:
        """(epoch counted from 1, value) wherever the metric is a finite number."""
        pairs = [(int(entry["epoch"]) + 1, number(entry.get(metric))) for entry in self.history]
        return [(epoch, value) for epoch, value in pairs if value is not None and math.isfinite(value)]


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

    @property
    def keys(self) -> list[str]:
        """What was varied, the seed apart."""
        return [key for key in self.varied if key != "seed"]

    def value(self, run: Run) -> float | None:
        """The objective at the run's last epoch."""
        value = number(dict(named(run.result)).get(self.objective))
        return run.last(self.objective) if value is None else value


def read_study(folder: Path) -> Study:
    """All runs below `folder`, at any depth. Raises ValueError, one line, where there is no folder or no run."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    runs = [run for path in run_folders(folder) if (run := read_run(path, folder)) is not None]
    if not runs:
        raise ValueError(f"{folder}: holds no run (a folder with .hydra/ or results.json in it)")
    names = Counter(tuple(name for name, _ in named(run.result)) or ("val/accuracy",) for run in runs if run.result)
    objectives = names.most_common(1)[0][0] if names else ("val/accuracy",)
    return Study(folder, runs, varied_keys(runs), list(objectives))


def named(result: dict[str, Any]) -> list[tuple[str, Any]]:
    """The objectives of a run, by name."""
    several = result.get("objectives")
    found = several if isinstance(several, list) else [result.get("objective")]
    return [(o["name"], o.get("value")) for o in found if isinstance(o, dict) and isinstance(o.get("name"), str)]


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
    content: Any = read_json(folder / RESULTS)
    result = content if isinstance(content, dict) else {}
    history = clean_history(result.get("history")) or read_metrics(folder / METRICS)
    if not (folder / ".hydra").is_dir() and not history and "status" not in result:
        return None
    overrides = read_overrides(folder)
    status, error = result.get("status"), result.get("error")
    return Run(
        folder=folder,
        name=folder.relative_to(study).as_posix(),
        overrides=overrides,
        settings=dict(setting(override) for override in overrides),
        status=status if isinstance(status, str) else RUNNING if is_active(folder, history) else UNFINISHED,
        error=None if error is None else str(error),
        result=result,
        history=history,
    )


def read_overrides(folder: Path) -> tuple[str, ...]:
    content = read_yaml(folder / ".hydra" / "overrides.yaml")
    return tuple(str(line) for line in content) if isinstance(content, list) else ()


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; None where it is missing or broken."""
    try:
        return yaml.load(path.read_text(), Loader=LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def setting(override: str) -> tuple[str, str]:
    """`+key=value` as (key, value); `~key` takes the key out."""
    key, _, value = override.lstrip("+~").partition("=")
    return key, "removed" if override.startswith("~") else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The epochs of a metrics.jsonl, whose last line may be half written."""
    lines = []
    try:
        for line in path.read_text(errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    except OSError:
        pass
    return clean_history(lines)


def clean_history(entries: Any) -> list[dict[str, Any]]:
    """The entries that are an epoch's, in order, each epoch once."""
    if not isinstance(entries, list):
        return []
    known = [e for e in entries if isinstance(e, dict) and math.isfinite(number(e.get("epoch"), math.nan))]
    return [entry for _, entry in sorted({int(entry["epoch"]): entry for entry in known}.items())]


def is_active(folder: Path, history: list[dict[str, Any]]) -> bool:
    """Whether something was written lately into the folder of a run without results."""
    epoch = number(history[-1].get("seconds"), 0.0) if history else 0.0
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


def natural(value: str) -> tuple[int, float, str]:
    """A sort key: numbers by size, then words."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value


@overload
def number(value: Any) -> float | None: ...
@overload
def number(value: Any, otherwise: float) -> float: ...
def number(value: Any, otherwise: float | None = None) -> float | None:
    """A number out of a JSON file; `otherwise` for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def inside(node: Any, *keys: str) -> Any:
    """`node[key][key]…`; None where one is missing or holds no keys."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node
