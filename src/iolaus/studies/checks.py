"""The configurations of all jobs of a sweep, composed and checked before the first of them trains."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.command import can_redraw
from iolaus.config.check import check_composed
from iolaus.config.combinations import keys_without_effect, refuse_unread
from iolaus.config.explain import explain
from iolaus.config.mistakes import FOREIGN
from iolaus.config.unchanged import OTHER_RUN
from iolaus.errors import ConfigError, printable
from iolaus.files.run_folder import RunFolder
from iolaus.studies.compose import JobLoader
from iolaus.trust.folder_names import FolderNames, find_folder_problems

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from iolaus.config.check import RunConfig

log = logging.getLogger(__name__)
FEW_JOBS = 20  # whose check takes no time
SILENT_SECONDS = 2.0  # before a check that takes long says how far it is
LINE_SECONDS = {True: 0.2, False: 10.0}  # between two such lines, at a terminal and elsewhere


class JobChecks:
    """What is wrong with the jobs of a sweep, each mistake once, and which keys each of them does not read."""

    def __init__(self, loader: JobLoader, config: "DictConfig") -> None:
        self.loader, self.config = loader, config
        self.problems, self.complete = dict[str, None](), True
        self.unread: list[dict[str, str]] = []
        self.folders = set[Path]()
        self.known: dict[str, tuple[object, dict[str, Any]]] = {}  # as for check()

    @contextlib.contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the lines of a ConfigError in place of raising it."""
        try:
            yield
        except ConfigError as error:
            self.problems |= dict.fromkeys(error.problems)
            self.complete &= error.complete

    def compose(self, job: list[str]) -> "DictConfig":
        """The configuration of a job from its overrides. Raises ConfigError."""
        try:
            return self.loader.load_sweep_config(self.config, job)
        except FOREIGN as error:
            raise ConfigError(*explain(error)) from error

    def place(self, folders: FolderNames) -> RunFolder:
        """The folder of a job's run. Raises ConfigError where it lies outside the study's; one for two is a problem."""
        if problems := [*find_folder_problems(folders)]:
            raise ConfigError(*problems)
        subdir = str(folders.given["hydra.sweep.subdir"])
        folder = RunFolder(Path(str(folders.given["hydra.sweep.dir"])) / subdir)
        if folder.path in self.folders:  # not raised: what else is wrong with the job is told, too
            of_two = f"two runs of this sweep would have the folder {printable(subdir)}"
            self.problems[f"hydra.sweep.subdir: {of_two}; give each value once"] = None
        self.folders.add(folder.path)
        return folder

    def check(self, composed: "DictConfig", overrides: list[str], plain: dict[str, Any] | None = None) -> "RunConfig":
        """Check what take_job_config made of a composed configuration. Raises ConfigError.

        plain: the same, where it is resolved already.
        """
        config = check_composed(composed, plain, self.known)
        self.unread.append(keys_without_effect(config, overrides))
        return config

    def refuse(self) -> None:
        """Raise ConfigError with all mistakes, if there is one."""
        if self.problems:
            raise ConfigError(*count_other_runs(self.problems), complete=self.complete)
        refuse_unread(self.unread)


def count_other_runs(problems: Iterable[str]) -> list[str]:
    """The lines, with one in the place of those that differ in the run alone that is of another configuration."""
    kinds: dict[str, list[str]] = {}
    for line in problems:
        _, other, changes = line.partition(OTHER_RUN)
        kinds.setdefault(changes if other else line, []).append(line)
    lines = []
    for first, *others in kinds.values():
        several = f" and {len(others)} more hold runs of another configuration"
        lines.append(first.replace(OTHER_RUN, several) if others else first)
    return lines


def number_jobs(jobs: Sequence[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """The jobs with their numbers; says how many of them have been checked, where that takes long.

    At a terminal it is a line that is redrawn on standard error, elsewhere a line of the log every few seconds.
    """
    terminal, next_line = can_redraw(sys.stderr), time.monotonic() + SILENT_SECONDS
    redrawn = False
    try:
        for number, job in enumerate(jobs):
            if (now := time.monotonic()) > next_line and len(jobs) > FEW_JOBS:
                line, next_line = f"checked {number} of {len(jobs)} configurations", now + LINE_SECONDS[terminal]
                if terminal:
                    print(f"\r{line}", end="", file=sys.stderr, flush=True)
                    redrawn = True
                else:
                    log.info("%s", line)
            yield number, job
    finally:
        if redrawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
