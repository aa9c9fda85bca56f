"""The progress of a run without a terminal (nohup, tee, Slurm, a notebook): one plain line an epoch, in the log."""

import functools
import logging
import os
import time
from typing import TYPE_CHECKING

from iolaus.show.numbers import format_duration, format_metric

if TYPE_CHECKING:
    from iolaus.learner import Metrics

log = logging.getLogger(__name__)
WINDOW_SECONDS = 5.0  # of steps, whose speed is compared
SLOWER = 3.0  # times, to be worth a line


def format_epoch(epoch: int, epochs: int, metrics: "Metrics", best: bool | None) -> str:
    """`epoch 3/30: train loss 1.2500, 50.00 %; val loss 1.5000, 45.67 %; lr 0.1; 3.2 s, best`; epochs count from 1."""
    parts = [
        f"{split} loss {format_metric('loss', metrics.get(f'{split}/loss'))}, "
        f"{format_metric('accuracy', metrics.get(f'{split}/accuracy'))}"
        for split in ("train", "val")
        if f"{split}/loss" in metrics
    ]
    if "lr" in metrics:
        parts.append(f"lr {metrics['lr']:.3g}")
    if "seconds" in metrics:
        parts.append(format_duration(metrics["seconds"]))
    return f"epoch {epoch + 1}/{epochs}: {'; '.join(parts)}{', best' if best else ''}"


class Pace:
    """Notes the speed of the steps, and says once when they have become several times slower, and what to set.

    On a machine whose cores are taken, threads wait for each other at the end of each operation: a small model
    is then many times faster in one thread (OMP_NUM_THREADS=1) than in one for each core.
    """

    def __init__(self, small: bool = False) -> None:
        self.small, self.told = small, False
        self.steps = self.step = self.done = 0
        self.at = self.seconds = self.best = 0.0

    def start_epoch(self, steps: int, step: int) -> None:
        """Begin an epoch of `steps` steps at `step`. Steps of another number have another size: they count anew."""
        if steps != self.steps:
            self.steps, self.done, self.seconds, self.best = steps, 0, 0.0, 0.0
        self.step, self.at = step, time.monotonic()

    def note(self, step: int) -> None:
        """Take the number of steps done in this epoch; what lies between two epochs does not count."""
        now = time.monotonic()
        self.seconds += now - self.at
        self.done += step - self.step
        self.step, self.at = step, now
        if self.told or self.seconds < WINDOW_SECONDS:
            return
        speed = self.done / self.seconds
        if speed * SLOWER < self.best:
            log.warning("steps are %.1f times slower than before: %s", self.best / speed, describe_load(self.small))
            self.told = True
        self.best, self.done, self.seconds = max(self.best, speed), 0, 0.0


def busy_threads() -> tuple[float, int]:
    """The machine's load of the last minute, 0 where the system does not tell, and the number of its cores."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1


def describe_load(small: bool) -> str:
    """How busy the machine is, and what helps a small model: in words."""
    load, cores = busy_threads()
    if load <= cores:
        return "memory, disk or the device may be shared with other work"
    several = os.environ.get("OMP_NUM_THREADS") != "1"
    hint = "; OMP_NUM_THREADS=1 in the environment helps small models such as this" if small and several else ""
    return f"{load:.1f} busy threads on {cores} cores{hint}"


@functools.cache
def warn_if_busy(small: bool) -> None:
    """Say before the first step that other work takes the cores; once, however many runs a process trains."""
    load, cores = busy_threads()
    if load > 1.5 * cores:
        log.warning("the machine is busy: %s", describe_load(small))
