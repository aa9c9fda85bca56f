"""The settings that runs have, not only those that were typed: one run's default is what another one was given."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from iolaus.files.layout import HYDRA
from iolaus.report.parsing import get_nested, read_yaml
from iolaus.show.numbers import PLAIN_NUMBER
from iolaus.show.tables import clean_text

if TYPE_CHECKING:
    from iolaus.report.runs import Run


def fill_settings(runs: "list[Run]", keys: Iterable[str]) -> "list[Run]":
    """The runs with a setting for each of the keys, which at least one of them was given.

    A key that a run's configuration does not have stays out. Numbers that are equal are written alike: 0.10 as 0.1.
    """
    keys = list(keys)
    spellings: dict[tuple[str, object], str] = {}

    def spell(key: str, value: str) -> str:
        number = float(value) if PLAIN_NUMBER.fullmatch(value) else value.replace(", ", ",")
        return spellings.setdefault((key, number), value)

    filled = []
    for run in runs:
        found = {key: run.settings[key] if key in run.settings else default_of(run, key) for key in keys}
        settings = {key: spell(key, value) for key, value in found.items() if value is not None}
        filled.append(replace(run, settings=settings))
    return filled


def default_of(run: "Run", key: str) -> str | None:
    """The value of a key that was not typed: of a group the option that was chosen; None where the run has none."""
    node: object = config_of(run)
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            node = {}
            break
        node = node[part]
    if isinstance(node, dict):
        choices = get_nested(read_once(run.folder / HYDRA / "hydra.yaml"), "hydra", "runtime", "choices")
        if not isinstance(choices, dict) or key not in choices:
            return None
        node = "none" if choices[key] is None else choices[key]
    return spell_value(node)


def spell_value(value: object) -> str | None:
    """A value as it is typed on a command line; None for one that is not plain, such as ${…}."""
    if isinstance(value, list):
        parts = list(map(spell_value, value))
        return None if None in parts else f"[{','.join(map(str, parts))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str | int | float) or "${" in str(value):
        return None
    return clean_text(str(value))


def config_of(run: "Run") -> object:
    """A run's configuration, of results.json, or of .hydra/ before there are results."""
    saved = run.result.get("config")
    return saved if isinstance(saved, dict) else read_once(run.folder / HYDRA / "config.yaml")


def read_once(path: Path) -> object:
    """A file of .hydra/, which does not change once it is there."""
    try:
        return read_version(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def read_version(path: Path, _: int) -> object:
    return read_yaml(path)
