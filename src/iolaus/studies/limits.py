"""How long a command may work: `trainer.max_minutes` ends its run, `hydra.sweeper.timeout` lets no other begin."""

import logging
import math
import time

from hydra.core.singleton import Singleton

from iolaus.errors import ConfigError
from iolaus.machine.signals import ALARM

log = logging.getLogger(__name__)


class Clock(metaclass=Singleton):
    """When this process's command began, in seconds since 1970. Hydra hands its singletons to joblib's workers."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin a command, or a job of its own on another machine."""
        self.began = time.time()

    def end(self, minutes: float | None) -> float:
        """The time at which so many minutes of the command are over; None is no limit."""
        return math.inf if minutes is None else self.began + 60 * minutes

    def is_over(self, minutes: float | None) -> bool:
        """Whether so many minutes of the command are over."""
        return time.time() >= self.end(minutes)


def check_minutes(key: str, minutes: object) -> None:
    """Raise ConfigError for a limit that is no time."""
    if minutes is None:
        return
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes < math.inf:
        raise ConfigError(f"{key}={minutes}: must be minutes above 0, or null for no limit")


def end_when_over(max_minutes: float | None) -> None:
    """Raise SystemExit, as a run does, where a study's `trainer.max_minutes` are over before its next run begins."""
    if max_minutes is not None and Clock.instance().is_over(max_minutes):
        log.warning("trainer.max_minutes=%g are over", max_minutes)
        raise SystemExit(128 + ALARM)
