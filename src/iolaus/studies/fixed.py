"""What all runs of a study have in common: kept in its folder, so that a file that is edited meanwhile is told."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from omegaconf import DictConfig

from iolaus.config.unchanged import as_text
from iolaus.errors import ConfigError
from iolaus.files.atomic import read_json, write_json
from iolaus.files.changes import common_values, find_changes, format_changes
from iolaus.files.layout import HYDRA, TRIALS, short_hash

HINT = "give the values of before, or choose another study=NAME"


class FixedValues(metaclass=Singleton):
    """The values, by dotted keys, that each run of this command has. Hydra hands its singletons to its workers.

    accepted: whether the command has got past the checks of a study's start.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin a study."""
        self.values: dict[str, Any] = {}
        self.accepted = False

    def check(self, config: DictConfig) -> None:
        """Raise ConfigError where a run's configuration has other values: a file was edited since the start."""
        composed = json.loads(json.dumps(as_text(config), default=str))
        now = {key: composed[key] for key in self.values if key in composed}
        if changes := find_changes(self.values, now):
            raise ConfigError(f"{format_changes(changes)}: a file was edited while this study runs; {HINT}")


def fix_values(folder: Path, command: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> None:
    """Set what all runs of a command share, and compare it with what they shared when the command was given before.

    command: its overrides; one that varies other things in the same folder is another. configs: the runs' by dotted
    keys. Raises ConfigError, which names the keys that differ.
    """
    file = folder / f".fixed-{short_hash(' '.join(command))}.json"
    fixed = FixedValues.instance()
    values = fixed.values = json.loads(json.dumps(common_values(configs), default=str))  # as they will be read again
    if not (before := read_json(file)):
        write_json(file, values)
    elif changes := find_changes(before, values):
        why = f"was edited, or changed by an update, since {folder} began"
        raise ConfigError(f"{format_changes(changes)}: {why}; {HINT}")
    fixed.accepted = True


def check_sweeper(folder: Path, is_search: bool) -> None:
    """Raise ConfigError where a study holds the runs of the other sweeper: a table has trials or a grid's runs."""
    has_trials = (folder / TRIALS).is_dir()
    if has_trials != is_search and (has_trials or any(folder.glob(f"*/{HYDRA}/config.yaml"))):
        holds = "a search" if has_trials else "a grid"
        raise ConfigError(f"study={folder.name}: {folder} holds {holds}; choose another study=NAME", complete=True)
