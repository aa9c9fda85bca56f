"""What a run's files hold, as far as it can be used: a file that is missing, half written or broken raises nothing.

JSON values may have any shape, and YAML of a run is plain here, so that a report needs neither Hydra nor torch.
"""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import yaml

from iolaus.files.layout import HYDRA, METRICS
from iolaus.show.tables import clean_text

LARGEST = 1e50  # no float32 comes near; beyond, sums and squares would leave the range of floats
MOST_EPOCHS = 10**9
# libyaml's loader, where PyYAML has it: ten times as fast
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_history(folder: Path) -> list[dict[str, float]]:
    """The epochs of metrics.jsonl (see `clean_history`)."""
    entries = []
    with contextlib.suppress(OSError):
        for line in (folder / METRICS).read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # the last line may be half written
                entries.append(json.loads(line))
    return clean_history(entries)


def clean_history(entries: object) -> list[dict[str, float]]:
    """The numbers of those entries that are an epoch's, in order; of an epoch's entries the last."""
    epochs = {}
    for entry in map(numbers_in, entries if isinstance(entries, list) else []):
        if 0 <= entry.get("epoch", math.nan) < MOST_EPOCHS:
            epochs[int(entry["epoch"])] = entry
    return [entry for _, entry in sorted(epochs.items())]


def read_yaml(path: Path) -> object:
    """The content of a YAML file; None where it can't be read."""
    try:
        return yaml.load(path.read_text(), Loader=LOADER)
    except Exception:  # for a bad tag or deep nesting PyYAML raises KeyError, AttributeError, RecursionError, …
        return None


def read_overrides(folder: Path) -> list[str]:
    """The overrides that a run was started with, as they were typed."""
    lines = read_yaml(folder / HYDRA / "overrides.yaml")
    return [clean_text(line) for line in lines if isinstance(line, str)] if isinstance(lines, list) else []


def numbers_in(node: object) -> dict[str, float]:
    """The numbers of a JSON object; those that are too large to be measured become infinite."""
    items = node.items() if isinstance(node, dict) else ()
    return {key: to_float(v) for key, v in items if isinstance(v, int | float) and not isinstance(v, bool)}


def to_float(value: float) -> float:
    """A float; ±inf for numbers, whole ones too, beyond ±LARGEST."""
    return math.inf if value > LARGEST else -math.inf if value < -LARGEST else float(value)


def text_in(node: object) -> str:
    """A JSON string or number as text; an empty text for everything else."""
    return clean_text(str(node)) if isinstance(node, str | int | float) and not isinstance(node, bool) else ""


def get_nested(node: object, *keys: str) -> object:
    """`node[key][key]…`; None where one is missing or holds no keys."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def read_objectives(result: dict[str, Any]) -> dict[str, object]:
    """The objectives in results.json by name, the first one first."""
    several = result.get("objectives")
    entries = several if isinstance(several, list) else [result.get("objective")]
    return {
        clean_text(entry["name"]): entry.get("value")
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    }
