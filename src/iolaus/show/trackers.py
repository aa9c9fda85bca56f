"""Trackers, which store the metrics of a run: JSON lines always, TensorBoard and Weights & Biases on request.

A tracker has the methods `log`, `text` and `close`, and `image` if it shows pictures. A tracker of `conf/tracker/` is
built with its own keys and those of `folder`, `config`, `purge_step`, `study` and `varied` that it accepts. TensorBoard
and wandb are imported when their tracker is built, so that other runs do not wait for them.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from iolaus.errors import describe_error
from iolaus.files.atomic import write_atomically
from iolaus.show.numbers import PLAIN_NUMBER
from iolaus.show.wandb_service import forget_failed_start, no_keyboard, read_or_create_id, sync_command

if TYPE_CHECKING:
    import numpy as np

    Picture = np.ndarray[Any, Any]  # (height, width, 3) uint8

log = logging.getLogger(__name__)

WandBMode = Literal["offline", "online", "disabled"]
HPARAMS_METRICS = ("test/accuracy", "val/accuracy", "train/accuracy", "test/loss", "val/loss", "train/loss", "seconds")


class Tracker(Protocol):
    """What the training loop needs of a tracker. Steps count optimizer updates since the run began.

    A tracker that shows pictures has a method `image(name, picture, step)`, too: (height, width, 3) uint8.
    """

    def log(self, metrics: dict[str, float], step: int) -> None: ...
    def text(self, name: str, value: str) -> None: ...
    def close(self) -> None: ...


class TrackerList:
    """Send every call to all trackers. A tracker that raises is named in a warning and dropped."""

    def __init__(self, trackers: Iterable[Tracker]):
        self.trackers = list(trackers)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.log(metrics, step))

    def text(self, name: str, value: str) -> None:
        self._each(lambda tracker: tracker.text(name, value))

    def image(self, name: str, draw: Callable[[], "Picture"], step: int) -> None:
        """Draw a picture for the trackers that have a method `image(name, picture, step)`, if any has."""
        able = [tracker for tracker in self.trackers if hasattr(tracker, "image")]
        picture = draw() if able else None
        self._each(lambda tracker: tracker.image(name, picture, step) if tracker in able else None)

    def close(self) -> None:
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Any], None]) -> None:
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                name, why = type(tracker).__name__, describe_error(error)
                log.warning("%s failed and is dropped for the rest of this run: %s", name, why)


class JSONL:
    """A file with one JSON object for each epoch, `{"step": step, **metrics}`, flushed after each line.

    Metrics without "epoch", which are logged within an epoch, are left to the other trackers. The file starts with
    `history`, the epochs up to the checkpoint, so that after a resume it holds each epoch once. NaN and infinities are
    written as Python's `json` writes and reads them.
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

    def text(self, name: str, value: str) -> None: ...

    def close(self) -> None:
        self.file.close()


class TensorBoard:
    """TensorBoard's event files, directly in `folder`: scalars and texts, the config among them.

    varied: the values of the keys that a sweep varies; with them the run is a row of the tab HPARAMS, beside those of
    HPARAMS_METRICS that it logs.
    purge_step: after a resume, the checkpoint's step + 1; TensorBoard then hides what the interrupted run wrote at
    that step and later (`torch.utils.tensorboard.SummaryWriter`).
    """

    def __init__(
        self,
        *,
        folder: Path,
        config: dict[str, Any],
        purge_step: int | None = None,
        varied: Mapping[str, str] | None = None,
    ):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=30)
        if purge_step is None:
            self.text("config", json.dumps(config, indent=2, default=str))
        self.session_end = self._start_session(varied) if varied else None

    def _start_session(self, varied: Mapping[str, str]) -> Any:
        """Write a row of HPARAMS, whose metrics TensorBoard takes from the scalars; returns the row's end.

        `SummaryWriter.add_hparams` would write copies of the scalars into a folder of its own.
        """
        from torch.utils.tensorboard.summary import hparams

        values = {key: float(v) if PLAIN_NUMBER.fullmatch(v) else v for key, v in varied.items()}
        experiment, start, end = hparams(values, dict.fromkeys(HPARAMS_METRICS))
        for summary in (experiment, start):
            self.writer._get_file_writer().add_summary(summary)
        return end

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def text(self, name: str, value: str) -> None:
        # TensorBoard renders texts as Markdown, which would join the lines: four spaces make them code
        self.writer.add_text(name, "    " + value.replace("\n", "\n    "))

    def image(self, name: str, picture: "Picture", step: int) -> None:
        self.writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        if self.session_end is not None:
            self.writer._get_file_writer().add_summary(self.session_end)
        self.writer.close()


class WandB:
    """A Weights & Biases run with its files in `folder`; offline unless `mode` is online.

    `wandb sync FOLDER/wandb/offline-run-*` uploads an offline run, as the log says at its end (of a study: once, when
    the study ends). The run's id is stored in `folder/wandb-id`, so that a resumed run continues under the same id; W&B
    ignores steps that it already has, so `purge_step` is not needed. Without a key or a connection an online run
    becomes an offline one, with a warning. No failure of wandb ends or stalls a run: the first failure is a warning,
    later ones are silent.

    name: the folder's name if None. group: if None, `study`, the name of the run's sweep; a single run is in no group.
    init_timeout: seconds to wait for the server.
    """

    def __init__(
        self,
        *,
        folder: Path,
        config: dict[str, Any],
        purge_step: int | None = None,
        study: str | None = None,
        project: str = "iolaus",
        mode: WandBMode = "offline",
        name: str | None = None,
        group: str | None = None,
        init_timeout: float = 10,
    ):
        self.run: Any = None
        self.sync_hint = ""
        self.silent = mode == "disabled"
        if self.silent:
            return
        folder = Path(folder)

        def start(mode: WandBMode) -> None:
            import wandb

            folder.mkdir(parents=True, exist_ok=True)
            # by default `finish` waits forever and `init` for 90 s;
            # `silent` is set for the whole library: set for `init` alone it leaves a login prompt
            wandb.setup(wandb.Settings(silent=True))
            quiet: dict[str, Any] = {"console": "off", "quiet": True, "silent": True}
            settings = wandb.Settings(init_timeout=init_timeout, finish_timeout=30, **quiet)
            with no_keyboard():
                self.run = wandb.init(
                    project=project,
                    mode=mode,
                    name=name or folder.resolve().name,
                    group=group or study,
                    config=config,
                    dir=str(folder),
                    id=read_or_create_id(folder / "wandb-id"),
                    resume="allow",
                    reinit="finish_previous",  # a run left open in this process must not receive our metrics
                    settings=settings,
                )
            if mode == "offline" and study is None:
                self.sync_hint = sync_command(folder)
            if mode == "online":
                log.info("wandb shows this run at %s", self.run.url)

        if mode == "online":
            try:
                return start("online")
            except Exception as error:
                log.warning("wandb cannot go online, so this run is kept offline: %s", describe_error(error))
                self._guard(forget_failed_start)
        self._guard(start, "offline")

    def log(self, metrics: dict[str, float], step: int) -> None:
        if not self.silent:
            self._guard(self.run.log, metrics, step=step)

    def text(self, name: str, value: str) -> None:
        # not into wandb's config, where a text named "optimizer" would replace the optimizer's own keys
        if not self.silent:
            self._guard(self.run.summary.update, {f"text/{name}": value})

    def image(self, name: str, picture: "Picture", step: int) -> None:
        if not self.silent:
            import wandb

            self._guard(lambda: self.run.log({name: wandb.Image(picture)}, step=step))

    def close(self) -> None:
        if self.run is not None:
            self._guard(self.run.finish)
            if self.sync_hint and not self.silent:
                log.info("upload this run to W&B: %s", self.sync_hint)
            self.run, self.silent = None, True

    def _guard(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            call(*args, **kwargs)
        except Exception as error:
            if not self.silent:
                log.warning("wandb failed and is silent for the rest of the run: %s", describe_error(error))
            self.silent = True
