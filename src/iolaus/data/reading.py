"""Read images by index in worker processes and shape them; a broken file ends the run or is left out."""

import functools
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import FrameType

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iolaus.augment.pipeline import Augmentation, Draws
from iolaus.augment.resized_crop import scale_boxes
from iolaus.data.shape import ImageShape, find_reduction
from iolaus.data.split import BrokenImage, LazyImages, read_image
from iolaus.data.ticks import tell_progress
from iolaus.errors import ConfigError
from iolaus.machine.signals import WARNINGS
from iolaus.settings import DatasetSettings

log = logging.getLogger(__name__)

SKIP_HINT = "dataset.on_bad_image=skip leaves such files out, dataset.verify=true names them all"
CHUNK = 64  # images that a process reads at a time
# Processes start in 0.1 s or, where each imports everything anew, in seconds: not worth it for so few pixels.
FEW_PIXELS = 1000 * 32**2


@dataclass(frozen=True)
class Item:
    """One image to read; in training also the seed of the user's transform, and the image's draws."""

    index: int
    seed: int | None = None
    drawn: Draws | None = None


@dataclass
class _ShapedImages(Dataset[Tensor | str]):
    images: Tensor | LazyImages
    shape: ImageShape
    augmentation: Augmentation | None

    def __getitem__(self, item: Item) -> Tensor | str:
        """(1, channels, size, size) uint8, or the error message of a broken image."""
        try:
            if self.augmentation is None or item.seed is None:
                return self.shape.read(self.images, item.index)
            if self.augmentation.scale is None:
                image, box = self.shape.read(self.images, item.index), None
            else:
                image, box = self._photograph(item.index, self.augmentation, item.drawn or {})
        except BrokenImage as error:
            return str(error)
        return self.augmentation.read(image, box, self.shape.size, [item.seed])

    def _photograph(self, index: int, augmentation: Augmentation, drawn: Draws) -> tuple[Tensor, Tensor]:
        """A photograph, which has more pixels than the kept square, and the box of its resized crop in pixels.

        It is decoded no larger than the box needs.
        """
        box = torch.empty(0)

        def reduction(height: int, width: int) -> int:
            nonlocal box
            box = augmentation.boxes(drawn, height, width)
            return find_reduction(int(box[0, 2:].min()), self.shape.size) if self.shape.reduces else 1

        pixels, whole = read_image(self.images, index, reduction)
        image = self.shape.preprocess(pixels, resize=False)
        if self.shape.initial is not None:  # the user's function may have changed the size
            return image, augmentation.boxes(drawn, *image.shape[-2:])
        return image, scale_boxes(box, whole.factor, image.shape[-2:])


def _collate(items: list[Tensor | str], memory_format: torch.memory_format) -> tuple[Tensor, list[int], list[str]]:
    images = [item for item in items if isinstance(item, Tensor)]
    good = [k for k, item in enumerate(items) if isinstance(item, Tensor)]
    batch = torch.cat(images).contiguous(memory_format=memory_format) if images else torch.empty(0)
    return batch, good, [item for item in items if isinstance(item, str)]


def _leave_signals_to_the_run(worker: int) -> None:
    """Let a reading process ignore the signals that end a run, which reach the whole process group.

    The run still takes its step and its checkpoint, and must not lose a reader meanwhile. After SIGTERM a reader ends
    by itself within a minute.
    """
    for number in (signal.SIGINT, *WARNINGS):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGTERM, _end_in_a_minute)


def _end_in_a_minute(number: int, frame: FrameType | None) -> None:
    signal.alarm(60)


class ImageReader:
    """Batches of images by their items, read ahead by worker processes that outlive a pass.

    images: read one by one, or (n, channels, height, width) uint8. An unreadable image raises BrokenImage; with
    settings.on_bad_image=skip it is left out, with one warning, or none if `quiet`. workers: their number, if not
    settings.num_workers. memory_format: of the batches; pictures come with their channels last, and to change the
    order of their bytes is work for the workers.
    """

    def __init__(
        self,
        images: Tensor | LazyImages,
        shape: ImageShape,
        settings: DatasetSettings,
        *,
        augmentation: Augmentation | None = None,
        pin: bool = False,
        workers: int | None = None,
        quiet: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.skip, self.quiet = settings.on_bad_image == "skip", quiet
        self.skipped: set[str] = set()
        self.plan: list[list[Item]] = []  # of the current pass; the loader and its workers outlive it
        workers = worker_count(settings.num_workers) if workers is None else workers
        self.loader: DataLoader[Tensor | str] = DataLoader(
            _ShapedImages(images, shape, augmentation),
            batch_sampler=self.plan,
            num_workers=workers,
            collate_fn=functools.partial(_collate, memory_format=memory_format),
            pin_memory=pin,
            worker_init_fn=_leave_signals_to_the_run,
            prefetch_factor=settings.prefetch_factor if workers else None,
            persistent_workers=settings.persistent_workers and workers > 0,
        )

    def read(self, plan: list[list[Item]]) -> Iterator[tuple[Tensor, list[int]]]:
        """For each list of items: the readable images, (n, channels, size, size) uint8, and their places in it."""
        self.plan[:] = plan
        for images, good, broken in self.loader:
            for message in broken:
                if not self.skip:
                    raise BrokenImage(f"{message}; {SKIP_HINT}")
                if message not in self.skipped and not self.quiet:
                    log.warning("skipped: %s", message)
                self.skipped.add(message)
            yield images, good

    def close(self) -> None:
        """End the workers now: left to the garbage collector they can take seconds, and pile up in a sweep."""
        iterator = getattr(self.loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()
            self.loader._iterator = None


@functools.cache
def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(num_workers: int | None) -> int:
    """`num_workers`, or for None one reading process a core, at most 4; the ranks of this machine share its cores."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(4, max(1, cores() // ranks)) if num_workers is None else num_workers


def plan_once(images: Tensor | LazyImages) -> list[list[Item]]:
    """The plan of a pass over all images, for ImageReader.read."""
    return [[Item(i) for i in chunk.tolist()] for chunk in torch.split(torch.arange(len(images)), CHUNK)]


def read_all(
    images: Tensor | LazyImages,
    shape: ImageShape,
    settings: DatasetSettings,
    into: Tensor | None = None,
    sample: bool = False,
) -> tuple[Tensor, Tensor]:
    """Read and shape every image: (n, channels, kept_size, kept_size) uint8, and (n,) bool, False for skipped ones.

    into: a tensor to fill instead of a new one; the places of skipped images stay as they are. sample: these are some
    of the images, of which those that can't be read are told later. Raises BrokenImage.
    """
    side = shape.kept_size
    made = torch.empty(len(images), shape.channels, side, side, dtype=torch.uint8) if into is None else into
    few = len(images) * side**2 < FEW_PIXELS
    workers = 0 if few and settings.num_workers is None else None
    reader = ImageReader(images, shape, settings, workers=workers, quiet=sample)
    readable = torch.zeros(len(images), dtype=torch.bool)
    plan = plan_once(images)
    batches = tell_progress(reader.read(plan), "images sampled" if sample else "images read", len(images), CHUNK)
    try:
        for chunk, (batch, places) in zip(plan, batches, strict=True):
            if places:
                here = [chunk[k].index for k in places]
                made[here], readable[here] = batch, True
    finally:
        reader.close()
    if not readable.any():
        raise BrokenImage(f"none of the {len(images)} images can be read; one of them: {min(reader.skipped)}")
    return made, readable


def verify_images(splits: Sequence[LazyImages], shape: ImageShape, settings: DatasetSettings) -> None:
    """Read every image of all splits. Raises ConfigError that names each unreadable one, unless they are skipped."""
    broken: set[str] = set()
    total = sum(map(len, splits))
    for images in splits:
        reader = ImageReader(images, shape, replace(settings, on_bad_image="skip"), quiet=True)
        plan = plan_once(images)
        try:
            for _ in tell_progress(reader.read(plan), "images verified", len(images), CHUNK):
                pass
        finally:
            reader.close()
        broken |= reader.skipped
    if broken and settings.on_bad_image == "error":
        count = f"dataset.verify: {len(broken):,} of {total:,} images can't be read"
        raise ConfigError(f"{count}; dataset.on_bad_image=skip leaves them out", *sorted(broken))
    log.info("verified: %s of %s images can be read", f"{total - len(broken):,}", f"{total:,}")
