"""Jobs of a grid that differ in single values: composed once, then only those values are replaced.

Such a job's configuration is that of the job before it but for the values that vary, what refers to them
(`${optimizer.lr}`), its overrides and its number. What is not that simple is composed by Hydra, job by job: options of
groups, lists, keys that are added or deleted, values that are references themselves.
"""

import functools
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import OverrideType
from omegaconf import OmegaConf, open_dict

from iolaus.config.check import resolve_all
from iolaus.config.unchanged import as_text
from iolaus.studies.compat import apply_values
from iolaus.studies.compose import is_value, name_job, parse_once, plainly_unnamed
from iolaus.studies.job import take_job_config
from iolaus.studies.leaves import (
    Place,
    find_place,
    find_references,
    is_constant,
    is_pure,
    overlap,
    replace_value,
    value_at,
)
from iolaus.trust.folder_names import FOLDER_KEYS, FolderNames, read_folders
from iolaus.trust.hydra_node import values_as_written
from iolaus.trust.secrets import hide_secrets

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

    from iolaus.studies.checks import JobChecks

SUBDIR = "hydra.sweep.subdir"
OF_JOB = ("hydra.job", "hydra.overrides")  # what Hydra's node says of one job
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class ComposedJob:
    """One job's configuration, until the next is asked for.

    config: with Hydra's node only where it was not composed for this job alone. text: by dotted keys, its `${…}` as
    written. plain: resolved; None where that is still to be done.
    """

    config: "DictConfig"
    folders: FolderNames
    overrides: list[str]
    text: dict[str, Any]
    plain: dict[str, Any] | None


@dataclass
class Variant:
    """The jobs of one kind, of which one at a time is put into `config`.

    config: with Hydra's own node. lines: the overrides in it. text, plain: as in a ComposedJob; what is not changed in
    `plain` stays the same object. places: those that vary, by key. references: what is resolved anew for each job.
    folders: the names of its folders; folder_keys: those that another job may have otherwise, each with the keys that
    it follows (None: read for every job). unnamed: the keys that are not in a run's name where that is `${run_name:}`.
    """

    config: "DictConfig"
    lines: list[str]
    text: dict[str, Any]
    plain: dict[str, Any]
    places: dict[str, Place]
    references: list[Place]
    folders: FolderNames
    folder_keys: dict[str, set[str] | None]
    unnamed: list[str] | None

    def put(self, number: int, job: "Sequence[Override]") -> ComposedJob | None:
        """Make config, text and plain those of a job, and return it; None where a secret variable is in it."""
        lines = [str(override.input_line) for override in job]
        changed = [index for index, line in enumerate(lines) if line != self.lines[index]]
        apply_values([job[index] for index in changed], self.config)
        places = [self.places[job[index].key_or_group] for index in changed]
        with hide_secrets() as secrets:
            values = {place.path: place.value() for place in (*places, *self.references)}
        if secrets:
            return None
        self.text = self.text | {".".join(place.path): values[place.path] for place in places}
        for path, value in values.items():
            self.plain = replace_value(self.plain, path, value)
        if any(follows is None for follows in self.folder_keys.values()):
            for index in changed:
                self.config.hydra.overrides.task[index] = lines[index]
            self.config.hydra.job.num = number
        of_others = {job[index].key_or_group for index in changed}
        if keys := [key for key, follows in self.folder_keys.items() if follows is None or follows & of_others]:
            names = read_folders(self.config, keys)
            if SUBDIR in keys and names.given[SUBDIR] is None:
                return None
            self.folders = FolderNames(self.folders.given | names.given, self.folders.shown | names.shown)
        if self.unnamed is not None:
            name: dict[str, str | None] = {SUBDIR: name_job(lines, self.unnamed)}
            self.folders = FolderNames(self.folders.given | name, self.folders.shown | name)
        self.lines = lines
        return ComposedJob(self.config, self.folders, lines, self.text, self.plain)


class Variants:
    """Composes the jobs of a study, each kind of them once. checks: what composes a job by itself."""

    def __init__(self, checks: "JobChecks") -> None:
        self.checks = checks
        self.kinds = dict[tuple[str, ...], Variant | None]()
        self.is_single = functools.lru_cache(10_000)(self._is_single)

    def compose(self, number: int, lines: list[str]) -> ComposedJob:
        """The configuration of a job from its overrides. Raises ConfigError."""
        if (job := self._find(number, lines)) is not None:
            return job
        config = self.checks.compose(lines)
        with open_dict(config):
            config.hydra.job.num = number
        folders = read_folders(config)
        if folders.given[SUBDIR] is None:
            folders.given[SUBDIR] = str(OmegaConf.select(config, SUBDIR))  # raises what is wrong with it
        overrides = take_job_config(config)
        return ComposedJob(config, folders, overrides, as_text(config), None)

    def _find(self, number: int, lines: list[str]) -> ComposedJob | None:
        """The job by its variant; None where it is to be composed by itself, also for the error that it has."""
        job = [parse_once(line) for line in lines]
        kind = tuple(o.key_or_group if self.is_single(line) else line for o, line in zip(job, lines, strict=True))
        variant, found = self.kinds.get(kind), None
        try:
            if kind not in self.kinds:
                variant = self._learn(job, lines)
            found = None if variant is None else variant.put(number, job)
        except Exception:  # of Hydra, OmegaConf or a resolver: the job tells it when it is composed by itself
            pass
        self.kinds[kind] = None if found is None else variant
        return found

    def _is_single(self, line: str) -> bool:
        """Whether an override sets one plain value, as far as it shows itself."""
        override = parse_once(line)
        key, value = override.key_or_group, override.value()
        if override.type != OverrideType.CHANGE or override.package is not None or override.is_hydra_override():
            return False
        plain = value is None or isinstance(value, bool | int | float)
        plain = plain or (isinstance(value, str) and "${" not in value and "???" not in value)
        return plain and DOTTED.fullmatch(key) is not None and is_value(self.checks.config, key)

    def _learn(self, job: "list[Override]", lines: list[str]) -> Variant | None:
        """A variant that holds its first job; None where one job of this kind does not lead to the others."""
        keys = [o.key_or_group for o in job if is_value(self.checks.config, o.key_or_group)]
        # what take_job_config changes, and values whose order counts
        if any(o.is_hydra_override() for o in job) or any(k.endswith("_target_") for k in keys) or overlap(keys):
            return None
        config = self.checks.compose(lines)
        task: DictConfig = pickle.loads(pickle.dumps(config))
        take_job_config(task)
        written = values_as_written(task)
        references = [*find_references(config, written)]
        singles = [o.key_or_group for o, line in zip(job, lines, strict=True) if self.is_single(line)]
        places = {key: place for key in singles if (place := find_place(config, key)) is not None}
        if len(places) < len(singles) or not all(is_pure(value_at(written, place.path)) for place in references):
            return None
        whole = values_as_written(config)
        unnamed = None
        if value_at(whole, SUBDIR.split(".")) == "${run_name:}":
            unnamed = plainly_unnamed(config.hydra, lines)
        folder_keys = {
            key: {one for one in places if not is_constant(whole, key, [one])}
            if is_constant(whole, key, OF_JOB)
            else None
            for key in FOLDER_KEYS
            if key != SUBDIR or unnamed is None
        }
        with hide_secrets() as secrets:
            plain = resolve_all(task)
        if secrets:
            return None
        folders = read_folders(config)
        return Variant(config, lines, as_text(task), plain, places, references, folders, folder_keys, unnamed)
