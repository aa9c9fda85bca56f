"""What the tests share: the command as a person gives it, run within this process."""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT))

# One step on 16 images of noise: the least that is a run. Later arguments win over these.
TINY = (
    "dataset=synthetic", "dataset.num_classes=2", "dataset.size=8", "dataset.train_count=20", "dataset.test_count=6",
    "trainer.epochs=1", "trainer.batch_size=16", "dataset.validation=0.2", "tracker=none",
)  # fmt: skip

# An epoch's metrics, as the display and the tables show them.
EPOCH = {
    "train/loss": 1.25,
    "train/accuracy": 0.5,
    "val/loss": 1.5,
    "val/accuracy": 0.4567,
    "lr": 0.1,
    "seconds": 3.2,
}


@dataclass
class Outcome:
    """What a command did: exit status, standard output and error, and the folders of runs in outputs/."""

    status: int
    out: str
    err: str
    cwd: Path

    @property
    def runs(self) -> list[Path]:
        return sorted(path.parent.parent for path in (self.cwd / "outputs").glob("**/.hydra/config.yaml"))

    @property
    def results(self) -> dict[str, Any]:
        (folder,) = self.runs
        return json.loads((folder / "results.json").read_text())


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`python train.py ARGUMENTS` in an empty folder (the same one for all commands of a test)."""
    import train
    from iolaus.errors import errors_for_people

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        out, err, status = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                with errors_for_people():
                    train.main()
            except SystemExit as end:
                status = int(end.code or 0)
            finally:
                os.environ.pop("HYDRA_FULL_ERROR", None)
                close_log_files()
        return Outcome(status, out.getvalue(), err.getvalue(), tmp_path)

    return run


def close_log_files() -> None:
    """Close run.log, which the next command's logging configuration would drop without closing."""
    import logging

    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler | logging.StreamHandler):
            logging.getLogger().removeHandler(handler)
            handler.close()


@pytest.fixture(autouse=True)
def _quiet_and_repeatable() -> None:
    torch.manual_seed(0)


def terminal(width=100):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, _environ={})


def pipe():
    return Console(file=io.StringIO(), force_terminal=False, width=80, _environ={})


def written(console):
    """What was printed, without the terminal's control sequences; a redrawn line starts a new one."""
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", console.file.getvalue().replace("\r", "\n"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def one_thread():
    """On small images threads only wait for each other, seconds long where others use the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def first_step_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in somebody's code, in the first training step of all."""
    from iolaus import loop

    original, calls = loop.train_step, []

    def train_step(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("the unexpected")
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", train_step)
