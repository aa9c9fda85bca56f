"""The progress of a run in the terminal."""

import logging
import math
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from iolaus.command import can_redraw
from iolaus.show.numbers import MISSING, format_duration, format_metric
from iolaus.show.plain import Pace, format_epoch, warn_if_busy

if TYPE_CHECKING:
    from rich.console import Console

    from iolaus.learner import Metrics

log = logging.getLogger(__name__)
REDRAW_SECONDS = 0.2
METRICS_SHOWN = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
COLUMNS = ("epoch", "train loss", "train acc", "val loss", "val acc", "lr", "seconds")
WIDTHS = (7, 10, 9, 8, 8, 8, 7)


def progress(
    epochs: int, enabled: bool | None = None, console: "Console | None" = None, small: bool = False
) -> "AnyProgress":
    """A context manager that shows the progress of a run of `epochs` epochs.

    enabled: whether it is drawn in place; None does so in a terminal only. Otherwise each epoch is a line of the log.
    small: whether the model is one that a single thread suits (Parts.is_small).
    """
    if enabled is None:
        enabled = can_redraw(sys.stdout) if console is None else console.is_terminal
    if not enabled:
        return PlainProgress(epochs, small)
    from rich.console import Console

    return Progress(epochs, console or Console(), small)


class NullProgress:
    """The progress display that shows nothing."""

    def __enter__(self) -> "NullProgress":
        return self

    def wants_loss(self) -> bool:
        return False

    def __exit__(self, *_: object) -> None: ...
    def start_epoch(self, epoch: int, steps: int, start_step: int = 0) -> None: ...
    def step(self, step_in_epoch: int, loss: float | None = None) -> None: ...
    def end_epoch(self, metrics: "Metrics", best: bool | None = None) -> None: ...


class PlainProgress(NullProgress):
    """A line of the log for each epoch."""

    def __init__(self, epochs: int, small: bool = False) -> None:
        self.epochs, self.epoch, self.pace = epochs, 0, Pace(small)

    def __enter__(self) -> "PlainProgress":
        warn_if_busy(self.pace.small)
        return self

    def start_epoch(self, epoch: int, steps: int, start_step: int = 0) -> None:
        self.epoch = epoch
        self.pace.start_epoch(steps, start_step)

    def step(self, step_in_epoch: int, loss: float | None = None) -> None:
        self.pace.note(step_in_epoch)

    def end_epoch(self, metrics: "Metrics", best: bool | None = None) -> None:
        log.info("%s", format_epoch(self.epoch, self.epochs, metrics, best))


class Progress:
    """A live line for the current epoch, and above it a printed line for each finished epoch."""

    def __init__(self, epochs: int, console: "Console", small: bool = False):
        from rich.live import Live
        from rich.progress_bar import ProgressBar

        self.epochs, self.console = epochs, console
        # drawn by `step`, not by a thread: data loaders fork, and threads do not survive a fork;
        # stderr is redirected only if it is the terminal: in a file it stays where the user sent it
        self.live = Live(console=console, auto_refresh=False, transient=True, redirect_stderr=sys.stderr.isatty())
        self.bar = ProgressBar(total=1.0, width=24)
        self.epoch = self.step_in_epoch = self.steps = 0
        self.loss: float | None = None
        self.best_accuracy = -math.inf
        self.due = 0.0
        self.run_began: tuple[float, float] | None = None  # (seconds, epochs done by then)
        self.header_printed = False
        self.pace = Pace(small)

    def __enter__(self) -> "Progress":
        before = (sys.stdout, sys.stderr)
        warn_if_busy(self.pace.small)
        self.live.start()
        # Live has replaced the streams, so that other output appears above the live line;
        # log handlers still hold the old streams
        self.handlers = []
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler and handler.stream in before:
                self.handlers.append((handler, handler.stream))
                handler.setStream(sys.stdout if handler.stream is before[0] else sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
        for handler, stream in self.handlers:
            handler.setStream(stream)

    def start_epoch(self, epoch: int, steps: int, start_step: int = 0) -> None:
        """Begin `epoch` (counted from 0) of `steps` steps; `start_step` of them were done before a resume."""
        self.epoch, self.steps, self.loss = epoch, steps, None
        self.step_in_epoch = self.start_step = start_step
        self.pace.start_epoch(steps, start_step)
        self.epoch_began = time.monotonic()
        if self.run_began is None:
            self.run_began = (self.epoch_began, epoch + start_step / max(steps, 1))
        self._draw()

    def wants_loss(self) -> bool:
        """Whether the next `step` redraws: only then is the loss worth waiting for the GPU."""
        return time.monotonic() >= self.due

    def step(self, step_in_epoch: int, loss: float | None = None) -> None:
        """Show that `step_in_epoch` steps of this epoch are done, and the newest training loss."""
        self.step_in_epoch = step_in_epoch
        self.pace.note(step_in_epoch)
        if loss is not None:
            self.loss = loss
        if time.monotonic() >= self.due:
            self._draw()

    def end_epoch(self, metrics: "Metrics", best: bool | None = None) -> None:
        """Print the epoch's line from its metrics.

        best: whether this is the best epoch so far; None compares validation accuracies.
        """
        accuracy = metrics.get("val/accuracy")
        if best is None:
            best = accuracy is not None and accuracy > self.best_accuracy
        if best and accuracy is not None:
            self.best_accuracy = accuracy
        if not self.header_printed:
            self._print_row(COLUMNS, style="bold")
            self.header_printed = True
        lr = MISSING if "lr" not in metrics else f"{metrics['lr']:.3g}"
        *values, seconds = (format_metric(name, metrics.get(name)) for name in (*METRICS_SHOWN, "seconds"))
        cells = (f"{self.epoch + 1}/{self.epochs}", *values, lr, seconds)
        self._print_row(cells, mark="  best" if best else "")
        write_to_files(format_epoch(self.epoch, self.epochs, metrics, best))

    def _print_row(self, cells: Iterable[str], style: str = "", mark: str = "") -> None:
        from rich.text import Text

        line = " ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))
        self.console.print(Text.assemble((line, style), (mark, "bold green")))

    def _draw(self) -> None:
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        self.due = now + REDRAW_SECONDS
        done, elapsed = self.step_in_epoch - self.start_step, now - self.epoch_began
        speed = f"{done / elapsed:.1f} steps/s" if done and elapsed > 0 else ""
        self.bar.update(self.step_in_epoch / max(self.steps, 1))
        loss = "" if self.loss is None else f"loss {self.loss:.4f}"
        line = Table.grid(padding=(0, 2))
        line.add_row(
            Text(f"epoch {self.epoch + 1}/{self.epochs}", style="bold", no_wrap=True),
            self.bar,
            *(Text(cell, no_wrap=True) for cell in (speed, self._time_left(now), loss)),
        )
        self.live.update(line, refresh=True)

    def _time_left(self, now: float) -> str:
        """The time left for the whole run, at its mean speed so far, validation included."""
        assert self.run_began is not None
        began, done_before = self.run_began
        done = self.epoch + self.step_in_epoch / max(self.steps, 1)
        if done <= done_before:
            return ""
        return f"{format_duration(round((now - began) / (done - done_before) * (self.epochs - done)))} left"


def write_to_files(line: str) -> None:
    """Write a line into the log's files alone (run.log): the terminal shows it already."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, line, (), None))


AnyProgress = Progress | NullProgress
