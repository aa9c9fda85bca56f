"""Read images by index in worker processes, each brought to shape; a broken file ends the run or is left out."""

import functools
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iolaus.augment.pipeline import Augmentation, Draws
from iolaus.data.shape import ImageShape
from iolaus.data.splits import BrokenImage

log = logging.getLogger("iolaus")


@dataclass(frozen=True)
class Item:
    """One image to read; in training with the seed of its own transform, and what was drawn for it."""

    index: int
    seed: int | None = None
    drawn: Draws | None = None


@dataclass
class _Images(Dataset[Any]):
    images: Any
    shape: ImageShape
    augmentation: Augmentation | None

    def __getitem__(self, item: Item) -> Tensor | str:
        """(channels, size, size) uint8, or of a broken image what is wrong with it."""
        try:
            image = self.images[item.index]
        except BrokenImage as error:
            return str(error)
        image = image if image.ndim == 4 else image.unsqueeze(0)
        if self.augmentation is None or item.seed is None:
            return self.shape.bring(image)[0]
        # a resized crop is taken of the whole photograph: more pixels than the square that would be kept of it
        image = self.shape.bring(image, resize=self.augmentation.scale is None)
        return self.augmentation.read(image, item.drawn or {}, self.shape.size, [item.seed])[0]


def _batch(items: list[Tensor | str]) -> tuple[Tensor, list[int], list[str]]:
    images = [item for item in items if isinstance(item, Tensor)]
    good = [k for k, item in enumerate(items) if isinstance(item, Tensor)]
    return torch.stack(images) if images else torch.empty(0), good, [item for item in items if isinstance(item, str)]


def _leave_signals_to_the_run(worker: int) -> None:
    """In a reading process: Ctrl-C and SIGTERM, which reach the whole group, are the run's to answer.

    It still takes its step and its checkpoint, and must not lose a reader meanwhile; after SIGTERM a reader ends by
    itself when a minute has passed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGTERM, _end_in_a_minute)


def _end_in_a_minute(number: int, frame: Any) -> None:
    signal.alarm(60)


class Reader:
    """Batches of images by their items, read ahead by worker processes that outlive a pass.

    images: Photos, or a tensor (n, channels, height, width) uint8. settings: settings.DatasetSettings. What can't be
    read raises BrokenImage or, with on_bad_image=skip, is left out and told once.
    """

    def __init__(
        self, images: Any, shape: ImageShape, settings: Any, *, augmentation: Augmentation | None = None,
        pin: bool = False, workers: int | None = None,
    ) -> None:  # fmt: skip
        self.skipping = settings.on_bad_image == "skip"
        self.skipped: set[str] = set()
        self.plan: list[list[Item]] = []  # of the pass at hand; the loader and its workers outlive it
        workers = worker_count(settings.num_workers) if workers is None else workers
        ahead: dict[str, Any] = {}
        if workers:
            ahead = {"prefetch_factor": settings.prefetch_factor, "persistent_workers": settings.persistent_workers}
        self.loader: DataLoader[Any] = DataLoader(
            _Images(images, shape, augmentation), batch_sampler=self.plan, num_workers=workers, collate_fn=_batch,
            pin_memory=pin, worker_init_fn=_leave_signals_to_the_run, **ahead,
        )  # fmt: skip

    def read(self, plan: list[list[Item]]) -> Iterator[tuple[Tensor, list[int]]]:
        """For each list of items their images, (n, channels, size, size) uint8, and the places that these had in it."""
        self.plan[:] = plan
        for images, good, broken in self.loader:
            for message in broken:
                if not self.skipping:
                    raise BrokenImage(message)
                if message not in self.skipped:
                    log.warning("skipped: %s", message)
                self.skipped.add(message)
            yield images, good

    def close(self) -> None:
        """End the worker processes. Left to the garbage collector they can wait for seconds, and in a sweep pile up."""
        iterator = getattr(self.loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()
            self.loader._iterator = None


@functools.cache
def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(num_workers: int | None) -> int:
    """The number of reading processes: as given, else one per core, at most 4."""
    return min(4, cores()) if num_workers is None else num_workers


def read_all(images: Any, shape: ImageShape, settings: Any, into: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Read and shape every image: (n, channels, kept_size, kept_size) uint8, and (n,) bool, False where it is skipped.

    into: a tensor to fill in the place of a new one; the places of skipped images stay as they are. Raises BrokenImage.
    """
    side = shape.kept_size
    made = torch.empty(len(images), shape.channels, side, side, dtype=torch.uint8) if into is None else into
    # processes start in 0.1 s or, where each imports everything anew, in seconds: few images don't need them
    few = len(images) * side**2 < 1000 * 32**2
    reader = Reader(images, shape, settings, workers=0 if few and settings.num_workers is None else None)
    readable = torch.zeros(len(images), dtype=torch.bool)
    plan = [[Item(i) for i in chunk.tolist()] for chunk in torch.arange(len(images)).split(64)]
    try:
        for chunk, (batch, places) in zip(plan, reader.read(plan), strict=True):
            if places:
                here = [chunk[k].index for k in places]
                made[here], readable[here] = batch, True
    finally:
        reader.close()
    if not readable.any():
        raise BrokenImage(f"none of the {len(images)} images can be read; one of them: {min(reader.skipped)}")
    return made, readable
