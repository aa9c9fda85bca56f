"""What a person sees in the terminal: the progress of the run at hand."""

import logging
import math
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

REDRAW_SECONDS = 0.2
MISSING = "-"
COLUMNS = ("epoch", "train loss", "train acc", "val loss", "val acc", "lr", "seconds")
WIDTHS = (7, 10, 9, 8, 8, 8, 7)


def progress(epochs: int, enabled: bool | None = None, console: "Console | None" = None) -> "Progress | Quiet":
    """A context manager that shows how a run of `epochs` epochs goes on; use it in a `with` statement.

    enabled: None shows it in a terminal only. Where it is not shown all its methods do nothing.
    """
    if enabled is None:
        enabled = sys.stdout.isatty() if console is None else console.is_terminal
    if not enabled:
        return Quiet()
    from rich.console import Console

    return Progress(epochs, console or Console())


class Quiet:
    """The progress that nobody watches."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start_epoch(self, epoch: int, steps: int, start_step: int = 0) -> None:
        pass

    def wants_loss(self) -> bool:
        return False

    def step(self, step_in_epoch: int, loss: float | None = None) -> None:
        pass

    def end_epoch(self, metrics: dict[str, Any], best: bool | None = None) -> None:
        pass


class Progress:
    """One live line for the epoch that runs, and above it a printed line for each finished epoch."""

    def __init__(self, epochs: int, console: "Console"):
        from rich.live import Live
        from rich.progress_bar import ProgressBar

        self.epochs, self.console = epochs, console
        # drawn from `step`, not from a thread: data loaders fork, and threads do not survive a fork
        # what stderr sends to a file stays there
        self.live = Live(console=console, auto_refresh=False, transient=True, redirect_stderr=sys.stderr.isatty())
        self.bar = ProgressBar(total=1.0, width=24)
        self.epoch = self.step_in_epoch = self.steps = 0
        self.loss: float | None = None
        self.best_accuracy = -math.inf
        self.due = 0.0
        self.run_began: tuple[float, float] | None = None  # (seconds, epochs done by then)
        self.header_printed = False

    def __enter__(self) -> "Progress":
        before = (sys.stdout, sys.stderr)
        self.live.start()
        # Live has put its own streams in their place, so that lines printed meanwhile land above it;
        # log handlers, which hold the streams of before, have to be told
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
        """Begins `epoch` (counted from 0) of `steps` steps; `start_step` of them are from before a resume."""
        self.epoch, self.steps, self.loss = epoch, steps, None
        self.step_in_epoch = self.start_step = start_step
        self.epoch_began = time.monotonic()
        if self.run_began is None:
            self.run_began = (self.epoch_began, epoch + start_step / max(steps, 1))
        self._draw()

    def wants_loss(self) -> bool:
        """Whether the next `step` redraws: only then is the loss worth a wait for the GPU."""
        return time.monotonic() >= self.due

    def step(self, step_in_epoch: int, loss: float | None = None) -> None:
        """Tells that `step_in_epoch` steps of this epoch are done, and the training loss so far."""
        self.step_in_epoch = step_in_epoch
        if loss is not None:
            self.loss = loss
        if time.monotonic() >= self.due:
            self._draw()

    def end_epoch(self, metrics: dict[str, Any], best: bool | None = None) -> None:
        """Prints the epoch's line from its `split/name` metrics (fractions), "lr" and "seconds".

        best: whether this is the best epoch so far; None takes the highest validation accuracy seen here.
        """
        accuracy = metrics.get("val/accuracy")
        if best is None:
            best = accuracy is not None and accuracy > self.best_accuracy
        if best and accuracy is not None:
            self.best_accuracy = accuracy
        if not self.header_printed:
            self._print_row(COLUMNS, style="bold")
            self.header_printed = True
        cells = (
            f"{self.epoch + 1}/{self.epochs}",
            number(metrics.get("train/loss")),
            percent(metrics.get("train/accuracy")),
            number(metrics.get("val/loss")),
            percent(metrics.get("val/accuracy")),
            number(metrics.get("lr"), ".3g"),
            number(metrics.get("seconds"), ".1f"),
        )
        self._print_row(cells, mark="  best" if best else "")

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
        """Of the whole run, by the seconds that an epoch took so far, its validation included."""
        assert self.run_began is not None
        began, done_before = self.run_began
        done = self.epoch + self.step_in_epoch / max(self.steps, 1)
        if done <= done_before:
            return ""
        return f"{duration(round((now - began) / (done - done_before) * (self.epochs - done)))} left"


def percent(fraction: float | None) -> str:
    return MISSING if fraction is None else f"{100 * fraction:.2f} %"


def number(value: float | None, form: str = ".4f") -> str:
    return MISSING if value is None else format(value, form)


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
