"""Which files of the user's a run's numbers depend on: those that its configuration names, and what they say."""

import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from iolaus.trust.command_line import FUNCTION_KEYS
from iolaus.trust.targets import nodes_in


def hash_own_code(plain: Mapping[str, Any]) -> dict[str, str]:
    """The user's own files that a resolved configuration names, with the first digits of the SHA-256 of each.

    Only those files themselves, not what they import; not those of installed packages, whose versions a run records.
    """
    found = {}
    for target in targets_in(plain):
        file = own_file(target)
        if file is not None:
            found[file.name] = digest_of(file)
    return dict(sorted(found.items()))


@functools.cache
def digest_of(file: Path) -> str:
    """The first digits of a file's SHA-256, as it was when this process first asked: what it has imported."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def targets_in(plain: Mapping[str, Any]) -> Iterator[str]:
    """Every dotted path in a configuration that something is built from."""
    for key, node in nodes_in("", plain):
        if not key.startswith(".tracker"):  # what looks on changes no number
            yield str(node["_target_"])
    for key in FUNCTION_KEYS:
        group, _, name = key.rpartition(".")
        if isinstance(value := (plain.get(group) or {}).get(name), str):
            yield value


def own_file(target: str) -> Path | None:
    """The file of the module that a dotted path lies in, if it is imported and nobody installed it."""
    parts = target.replace(":", ".").split(".")
    modules = (sys.modules.get(".".join(parts[:count])) for count in range(len(parts), 0, -1))
    module = next((module for module in modules if module is not None), None)
    path: str | None = getattr(module, "__file__", None)  # what is built into Python has none
    if path is None or not Path(path).is_file():
        return None
    file = Path(path).resolve()
    return None if any(file.is_relative_to(place) for place in places_of_others()) else file


@functools.cache
def places_of_others() -> tuple[Path, ...]:
    """Where Python, installed packages and Iolaus lie."""
    installed = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return tuple(Path(place).resolve() for place in (*installed, str(Path(__file__).parents[1])))
