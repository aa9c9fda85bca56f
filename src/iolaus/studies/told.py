"""What ends a run of a sweep, told once (ten runs that lack the same folder have one mistake), and what ends all."""

import logging
import sys
import threading

from hydra.core.singleton import Singleton

from iolaus.config.explain import explain
from iolaus.errors import ConfigError, RunFailed, printable

log = logging.getLogger(__name__)
_telling = threading.Lock()


class Told(metaclass=Singleton):
    """The lines that this command has printed. Hydra hands its singletons to its workers.

    by_sweeper: whether the process that launches the runs tells, and not the one that has met the error.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self, by_sweeper: bool = False) -> None:
        """Begin a sweep."""
        self.lines: set[str] = set()
        self.by_sweeper = by_sweeper

    def tell(self, error: ConfigError | RunFailed) -> None:
        """Print the lines of an error that were not printed yet."""
        with _telling:
            for line in explain(error):
                if line not in self.lines:
                    print(f"iolaus: {printable(line)}", file=sys.stderr)
                self.lines.add(line)
        error.told = True


def tell_stopped(study: str, runs: str, done: int, total: int) -> None:
    """Say how far a study is that a signal, or the command's time, has ended."""
    log.warning("the %s is stopped: %d of %d %s are done; the same command goes on", study, done, total, runs)
