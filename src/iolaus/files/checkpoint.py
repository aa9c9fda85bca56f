"""Checkpoints: a kill at any moment leaves the old one or the new one.

The zip container of a checkpoint holds a CRC-32 of every tensor, which torch does not look at and we do: a flipped
byte in a weight would load silently otherwise.
"""

import copy
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.errors import first_line
from iolaus.files.atomic import write_atomically

if TYPE_CHECKING:
    import torch

DOS_FOLDER = 0x10  # the bit of a zip entry's attributes


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain containers to `path`, atomically."""
    import torch

    write_atomically(path, lambda file: torch.save(state, file))


class Writer:
    """Writes checkpoints in their order, where `beside` in a thread beside the training: one set of files at a time.

    every: seconds after which a checkpoint is due even within an epoch, or None. Used in a `with` statement, which ends
    when all is written. What the file system does to a write is raised by the next one, or at the end.
    """

    def __init__(self, beside: bool, every: float | None = None) -> None:
        self.beside, self.every, self.counted_from = beside, every, time.monotonic()
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[None] | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self.join()
        finally:
            self.thread.shutdown()

    def write(self, states: Mapping[Path, dict[str, Any]]) -> None:
        """Write states as they are now, whatever becomes of their tensors and containers afterwards.

        A run's first checkpoint is waited for: without one, a run of several epochs could not be taken up again.
        """
        self.join()
        self.counted_from = time.monotonic()
        if self.beside and all(path.exists() for path in states):
            self.pending = self.thread.submit(save_all, *copy_to_memory(states))
        else:
            save_all(states)

    def is_due(self) -> bool:
        """Whether `every` seconds have passed without a checkpoint; said once, for ranks write it a step later."""
        now = time.monotonic()
        if self.every is None or now - self.counted_from < self.every:
            return False
        self.counted_from = now
        return True

    def join(self) -> None:
        """Wait until all is written."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()


def save_all(states: Mapping[Path, dict[str, Any]], copying: "Iterable[torch.cuda.Event]" = ()) -> None:
    """Write each state to its path, in order, when the tensors have been copied (see `copy_to_memory`)."""
    for event in copying:
        event.synchronize()
    for path, state in states.items():
        save(path, state)


def copy_to_memory(states: Mapping[Path, dict[str, Any]]) -> "tuple[dict[Path, Any], list[torch.cuda.Event]]":
    """Copies of the containers, and of each tensor one on the CPU, without a wait for a GPU.

    Returns them and the events after which the tensors are complete: a GPU copies in the order of its work, so before
    the next step changes a weight.
    """
    import torch

    tensors: dict[object, torch.Tensor] = {}
    gpus: set[torch.device] = set()

    def duplicate(value: object) -> object:
        if isinstance(value, torch.Tensor):
            key = value.device, value.data_ptr(), value.dtype, value.shape, value.stride()
            if key not in tensors:  # both checkpoints hold the weights, and a weight may have two names
                on_gpu = value.device.type == "cuda"
                gpus.update([value.device] if on_gpu else [])
                to = torch.empty_like(value, device="cpu", requires_grad=False, pin_memory=on_gpu)
                tensors[key] = to.copy_(value.detach(), non_blocking=True)
            return tensors[key]
        if isinstance(value, dict):
            made = copy.copy(value)  # of its own class; torch's state dicts have attributes, too
            for name in made:
                made[name] = duplicate(value[name])
            return made
        if isinstance(value, list):
            return [duplicate(part) for part in value]
        return tuple(map(duplicate, value)) if type(value) is tuple else value

    copies = {path: duplicate(state) for path, state in states.items()}
    return copies, [torch.cuda.current_stream(device).record_event() for device in gpus]


def load(path: Path, device: "torch.device | str" = "cpu", needs: Sequence[str] = ()) -> dict[str, Any]:
    """Read what `save` wrote, tensors only (`weights_only=True`).

    needs: the dicts that must be in it. Raises ValueError, one line, when the file is missing or not as it was written.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & DOS_FOLDER]
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged} is wrong")
        if folders:  # torch would not read it, and leave the tensor's memory as it happens to be
            raise zipfile.BadZipFile(f"{folders[0]} says that it is a folder")
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such checkpoint") from error
    except PermissionError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror})") from error
    except Exception as error:  # zipfile, pickle and torch each have their own for a broken file, some without words
        raise ValueError(f"{path}: the checkpoint is damaged ({first_line(error)})") from error
    if lacking := [key for key in needs if not isinstance(content, dict) or not isinstance(content.get(key), dict)]:
        raise ValueError(f"{path}: is no such checkpoint of a run (it has no {' and no '.join(lacking)})")
    return content
