"""Two configurations compared by their keys: which of them make another run."""

from collections.abc import Iterable, Mapping
from typing import Any

# Keys that say where and how a run is computed, and what is shown of it: another value trains the same model.
FREE_KEYS = (
    "trainer.device", "trainer.monitor_every", "trainer.keep_freed_memory", "trainer.compile", "trainer.cuda_graphs",
    "trainer.max_minutes", "trainer.checkpoint_every", "dataset.download",
    "dataset.num_workers", "dataset.persistent_workers", "dataset.prefetch_factor", "dataset.pin_memory",
    "dataset.cache_dir", "tracker.", "study", "resume",
)  # fmt: skip
# Those that a run which has begun does not need as they were: its data are compared, and its weights are its own.
STARTING_KEYS = ("dataset.root", "dataset.file", "model.weights")
ABSENT = "nothing"


def to_dotted_keys(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A nested dict as one of dotted keys; an empty one has no keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= to_dotted_keys(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def find_changes(
    then: Mapping[str, Any], now: Mapping[str, Any], free: tuple[str, ...] = FREE_KEYS
) -> dict[str, tuple[Any, Any]]:
    """The dotted keys, with both values, in which two configurations differ so that they are two runs.

    free: beginnings of keys that are not compared.
    """
    changed = {key: (then.get(key, ABSENT), now.get(key, ABSENT)) for key in {**then, **now}}
    return {key: pair for key, pair in changed.items() if pair[0] != pair[1] and not key.startswith(free)}


def format_changes(changes: Mapping[str, tuple[Any, Any]], most: int = 5) -> str:
    """`optimizer.lr=0.1, was 0.05; seed=1, was 0`"""
    words = [f"{key}={now}, was {then}" for key, (then, now) in changes.items()]
    return "; ".join(words[:most]) + (f"; and {len(words) - most} more" if len(words) > most else "")


def common_values(configs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The dotted keys that have one value in all of the configurations."""
    first, *others = configs
    return {key: value for key, value in first.items() if all(key in c and c[key] == value for c in others)}


def edited_files(codes: Iterable[object]) -> list[str]:
    """The names of files that say different things in dicts of {name: digest}, as several runs have kept them."""
    versions: dict[str, set[str]] = {}
    for code in codes:
        for name, digest in code.items() if isinstance(code, Mapping) else ():
            versions.setdefault(str(name), set()).add(str(digest))
    return sorted(name for name, digests in versions.items() if len(digests) > 1)
