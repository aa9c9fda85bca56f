"""What Weights & Biases needs beside its calls: a run's id, an empty keyboard, the command that uploads runs."""

import os
import shlex
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync_command(folder: Path) -> str:
    """The command that uploads the offline runs of a run's folder, or of a sweep's: the shell finds them all."""
    here = folder.absolute()
    shown = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    below = "wandb" if (folder / "wandb").is_dir() else "*/wandb"
    return f"wandb sync {shlex.quote(str(shown))}/{below}/offline-run-*"


def forget_failed_start() -> None:
    """End wandb's service process, which keeps the id of a run whose start timed out."""
    import wandb

    wandb.teardown()


def read_or_create_id(path: Path) -> str:
    """Read the run's id from the file at `path`; a missing file is written with a new id."""
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:8] + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


@contextmanager
def no_keyboard() -> Iterator[None]:
    """Replace standard input by an empty one, so that no prompt of wandb waits for the user."""
    stdin = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = stdin
