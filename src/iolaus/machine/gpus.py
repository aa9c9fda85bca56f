"""GPUs of their own for each process on a machine with several: runs side by side share one only when none is free."""

import contextlib
import itertools
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from iolaus.files import locks

_claimed = contextlib.ExitStack()  # its locks are held as long as the process lives
_ours: list[int] = []


def count() -> int:
    """The number of GPUs that this process may use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def claim_gpus(number: int | None) -> list[int]:
    """Choose this process's GPUs and return their indices, the same ones until the process ends or wants others.

    number: None is all that are free, at least one. torch numbers the GPUs of CUDA_VISIBLE_DEVICES, whether that holds
    numbers, UUIDs or a slice of a GPU (MIG), and knows the UUID of each, which names its lock.
    """
    global _ours
    if not _ours or len(_ours) != (number or len(_ours)):
        _claimed.close()
        ids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(count())]
        user = os.getuid() if hasattr(os, "getuid") else "windows"
        _ours = lock_free_gpus(ids, Path(tempfile.gettempdir()) / f"iolaus-{user}", _claimed, number)
    return _ours


def lock_free_gpus(ids: Sequence[str], folder: Path, stack: contextlib.ExitStack, number: int | None = 1) -> list[int]:
    """Lock `number` of the GPUs `ids` that no process of this machine has, in one go, and return their indices.

    When all are taken, each gets a second process, in the same order, then a third. number: None is all free ones, at
    least one. The locks are files in `folder` (locks.py) that `stack` holds; a killed process frees them.
    """
    chosen: list[int] = []
    with locks.file_lock(folder / "choice.lock", timeout=math.inf):  # two processes must not get half of theirs each
        for place in itertools.count():
            for index, name in enumerate(ids):
                if index in chosen or len(chosen) == number:
                    continue
                with contextlib.ExitStack() as mine:
                    if mine.enter_context(locks.file_lock(folder / f"{name}.{place}.lock")):
                        stack.enter_context(mine.pop_all())
                        chosen.append(index)
            if len(chosen) == number or (number is None and chosen):
                return sorted(chosen)
    raise AssertionError("itertools.count has no end")
