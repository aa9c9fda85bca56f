"""Where the numbers of a run go: a JSON-lines file always, TensorBoard and Weights & Biases by choice.

A tracker has three methods, `log`, `text` and `close`. Those in `conf/tracker/` are built with what they take of
`folder`, `config`, `purge_step` and `study`, and their own keys. TensorBoard and wandb are imported when a tracker is
built, so that a run without them does not wait for them.
"""

import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from iolaus.checkpoint import write_atomically

logger = logging.getLogger(__name__)

WANDB_MODES = ("offline", "online", "disabled")


class Tracker(Protocol):
    """What the training loop asks of a tracker. Steps count optimizer updates since the run began."""

    def log(self, metrics: dict[str, float], step: int) -> None: ...
    def text(self, name: str, value: str) -> None: ...
    def close(self) -> None: ...


class Several:
    """Sends every call to all trackers. One that raises is named in a warning and dropped."""

    def __init__(self, trackers: Iterable[Tracker]):
        self.trackers = list(trackers)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.log(metrics, step))

    def text(self, name: str, value: str) -> None:
        self._each(lambda tracker: tracker.text(name, value))

    def close(self) -> None:
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                logger.warning(
                    "%s failed and is dropped for the rest of this run: %s",
                    type(tracker).__name__,
                    _first_line(error),
                )


class JSONL:
    """One JSON object a line for each epoch, `{"step": step, **metrics}`, written out at once.

    What is logged within an epoch (metrics without "epoch") is left to the other trackers.

    The file is first written anew from `history`, the lines up to the checkpoint, so that after a resume
    it holds each of them once. A NaN or an infinity is written as Python's `json` does, and reads back there.
    """

    def __init__(self, path: Path, history: Iterable[dict[str, Any]] = ()):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(line) + "\n" for line in history)
        write_atomically(path, lambda file: file.write(lines.encode()))
        self.file = path.open("a", encoding="utf-8")

    def log(self, metrics: dict[str, float], step: int) -> None:
        if "epoch" in metrics:
            self.file.write(json.dumps({"step": step, **metrics}) + "\n")
            self.file.flush()

    def text(self, name: str, value: str) -> None:
        pass

    def close(self) -> None:
        self.file.close()


class TensorBoard:
    """Scalars and texts as TensorBoard's event files, directly in `folder`; the config goes in as a text.

    After a resume give `purge_step`, the checkpoint's step + 1: TensorBoard then hides what an interrupted
    run wrote at that step and later (`torch.utils.tensorboard.SummaryWriter`).
    """

    def __init__(self, *, folder: Path, config: dict[str, Any], purge_step: int | None = None):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=30)
        if purge_step is None:
            self.text("config", json.dumps(config, indent=2, default=str))

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def text(self, name: str, value: str) -> None:
        # TensorBoard reads texts as Markdown, which would join the lines: four spaces make them code
        self.writer.add_text(name, "    " + value.replace("\n", "\n    "))

    def close(self) -> None:
        self.writer.close()


class WandB:
    """A Weights & Biases run with its files in `folder`; offline unless `mode` is online.

    An offline run is sent later by `wandb sync FOLDER/wandb/offline-run-*`. The run's id is kept in
    `folder/wandb-id`, so that a resumed run goes on under the same id; W&B itself passes over steps that it
    has already, so `purge_step` is of no use here. Online without a key or a connection becomes offline with
    a warning. No failure of wandb ends or stalls a run: the first becomes a warning, the rest is silence.

    name: the folder's name if None. group: `study`, the name of the sweep that the run belongs to, if None; a run by
    itself is in no group. init_timeout: seconds to wait for the server.
    Raises ValueError for an unknown mode.
    """

    def __init__(
        self,
        *,
        folder: Path,
        config: dict[str, Any],
        purge_step: int | None = None,
        study: str | None = None,
        project: str = "iolaus",
        mode: str = "offline",
        name: str | None = None,
        group: str | None = None,
        init_timeout: float = 10,
    ):
        if mode not in WANDB_MODES:
            raise ValueError(f"tracker.wandb.mode={mode!r} is none of {', '.join(WANDB_MODES)}")
        self.run: Any = None
        self.silent = mode == "disabled"
        if self.silent:
            return
        folder = Path(folder)

        def start(mode: str) -> None:
            import wandb

            folder.mkdir(parents=True, exist_ok=True)
            # `finish` waits for ever by default, and `init` for a minute and a half;
            # silent is asked of the library as a whole: given to `init` alone it leaves a login prompt
            wandb.setup(wandb.Settings(silent=True))
            settings = wandb.Settings(
                init_timeout=init_timeout, finish_timeout=30, console="off", quiet=True, silent=True
            )
            with _no_keyboard():
                self.run = wandb.init(
                    project=project,
                    mode=mode,  # type: ignore[arg-type]
                    name=name or folder.resolve().name,
                    group=group or study,
                    config=config,
                    dir=str(folder),
                    id=_kept_id(folder / "wandb-id"),
                    resume="allow",
                    reinit="finish_previous",  # a run left open in this process must not take our numbers
                    settings=settings,
                )
            if mode == "online":
                logger.info("wandb shows this run at %s", self.run.url)

        if mode == "online":
            try:
                return start("online")
            except Exception as error:
                logger.warning("wandb cannot go online, so this run is kept offline: %s", _first_line(error))
                self._guard(_forget_failed_start)
        self._guard(start, "offline")

    def log(self, metrics: dict[str, float], step: int) -> None:
        if not self.silent:
            self._guard(self.run.log, metrics, step=step)

    def text(self, name: str, value: str) -> None:
        # not into wandb's config, where a text named "optimizer" would replace the optimizer's own keys
        if not self.silent:
            self._guard(self.run.summary.update, {f"text/{name}": value})

    def close(self) -> None:
        if self.run is not None:
            self._guard(self.run.finish)
            self.run, self.silent = None, True

    def _guard(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            call(*args, **kwargs)
        except Exception as error:
            if not self.silent:
                logger.warning("wandb failed and is silent for the rest of the run: %s", _first_line(error))
            self.silent = True


def _forget_failed_start() -> None:
    """Ends wandb's service process, which holds on to the id of a run whose start timed out."""
    import wandb

    wandb.teardown()


def _kept_id(path: Path) -> str:
    """The run's id out of the file at `path`, which is written if it is not there."""
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:8] + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


@contextmanager
def _no_keyboard() -> Iterator[None]:
    """Nothing inside can wait for somebody to type: standard input is empty, whatever wandb asks."""
    stdin = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = stdin


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
