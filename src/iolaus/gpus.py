"""One GPU for each process, on a machine that has several: runs side by side share none while there is a free one."""

import contextlib
import functools
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from iolaus import locks


def count() -> int:
    """How many GPUs this process may use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@functools.cache
def own_gpu() -> int:
    """The index of this process's GPU, which is its own until it ends: its data and its context lie there."""
    ids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(count())]
    user = os.getuid() if hasattr(os, "getuid") else "windows"
    return take(ids, Path(tempfile.gettempdir()) / f"iolaus-{user}", _taken)


_taken = contextlib.ExitStack()  # lives as long as the process


def take(ids: Sequence[str], folder: Path, stack: contextlib.ExitStack) -> int:
    """The index of the first of the GPUs `ids` that no process of the machine has; its lock is held by `stack`.

    When all are taken, a second process on each is let in, again in their order, then a third. A lock is a file in
    `folder` (locks.py), which a killed process leaves free. Where nothing can be locked (Windows), it is always 0.
    """
    for place in itertools.count():
        for index, name in enumerate(ids):
            with contextlib.ExitStack() as mine:
                if mine.enter_context(locks.held(folder / f"{name}.{place}.lock")):
                    stack.enter_context(mine.pop_all())
                    return index
    raise AssertionError("itertools.count has no end")
