"""Split a source, bring its images to shape, and place them: on the device, or behind reading processes."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from iolaus.augment.pipeline import Augmentation
from iolaus.data.epoch import Batches, EpochSettings
from iolaus.data.image_input import ImageInput
from iolaus.data.prepare import prepare_images, sample_images
from iolaus.data.reading import ImageReader, verify_images
from iolaus.data.resident import Resident
from iolaus.data.shape import ImageShape, channel_statistics
from iolaus.data.split import LazyImages, Source, Split
from iolaus.data.stratify import hold_out
from iolaus.data.streaming import Streaming
from iolaus.images import PixelRules, is_flat
from iolaus.settings import DatasetSettings, ModelSettings

if TYPE_CHECKING:
    from iolaus.machine.ranks import Alone

# A resident dataset takes at most this fraction of the free memory, of the host and of the device.
FREE_MEMORY_FRACTION = 0.25
FLAT_FRACTION = 0.02  # of sampled images; a few empty pictures are nobody's mistake

log = logging.getLogger(__name__)


@dataclass
class Datasets:
    """The three splits, and what a model must know of them.

    sample: gives evenly spaced training images as the model sees them, not augmented: (n, channels, size, size) float32
    on the CPU, 2,000 small images or fewer large ones. skipped_before: unreadable images found before training.
    """

    train: Batches
    val: Batches
    test: Batches
    classes: list[str]
    input: ImageInput
    shape: ImageShape
    description: str
    selected_on_test: bool
    sample: Callable[[], Tensor]
    skipped_before: int = 0

    @property
    def skipped_images(self) -> int:
        """The number of unreadable images left out so far (dataset.on_bad_image=skip)."""
        return self.skipped_before + len(set().union(*(reader.skipped for reader in self._readers())))

    def share_skipped(self, group: "Alone") -> None:
        """Let every rank know the unreadable images that any has left out; all call it."""
        for reader in self._readers():
            reader.skipped = set().union(*group.gather(sorted(reader.skipped)))

    def _readers(self) -> list[ImageReader]:
        splits = (self.train, self.val, self.test)
        return [split.reader for split in splits if isinstance(split, Streaming)]

    def close(self) -> None:
        """End the processes that read images, if there are any."""
        for split in (self.train, self.val, self.test):
            split.close()


_sources: dict[str, Source] = {}


def cached_source(node: Mapping[str, object], read: Callable[[], Source]) -> Source:
    """`read()`, or its last result if the reader's config is the same: the runs of a sweep share their data."""
    key = json.dumps(node, sort_keys=True)
    if key not in _sources:
        clear_source_cache()
        _sources[key] = read()
    return _sources[key]


def clear_source_cache() -> None:
    """Free the data that `cached_source` keeps."""
    _sources.clear()


def image_shape(
    source: Source, dataset: DatasetSettings, model: ModelSettings, initial: Callable[[Tensor], Tensor] | None
) -> ImageShape:
    """The shape of images for a model: the model's settings come before the dataset's, and these before the source."""
    size = max(model.image_size or dataset.image_size or source.image_size, model.min_image_size)
    kept_size = int(size / (dataset.crop_fraction or 1.0) + 1e-6)
    channels = model.in_channels or source.channels
    return ImageShape(channels, size, kept_size, dataset.interpolation, initial, dataset.resizing)


def open_data(
    source: Source,
    dataset: DatasetSettings,
    shape: ImageShape,
    *,
    augmentation: Augmentation | None,
    seed: int,
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
    drop_last: bool = True,
    shuffle: bool = True,
) -> Datasets:
    """Split, shape and place a dataset. Raises ValueError if an image can't be read or a class has too few images."""
    size = shape.channels * shape.kept_size**2 * sum(len(s.targets) for s in source.splits.values())
    reusable = source.prepared.bytes if source.prepared else 0  # from the last run of a sweep: as good as free
    free = free_memory(device) + reusable
    auto, by_test = dataset.residency == "auto", dataset.validation == "test"
    resident = size <= FREE_MEMORY_FRACTION * free if auto else dataset.residency == "resident"
    if dataset.verify:
        read_singly = [s.images for s in source.splits.values() if isinstance(s.images, LazyImages)]
        verify_images(read_singly, shape, dataset)
    prepared = prepare_images(source, dataset, shape, resident, device, memory_format)
    train, shape = prepared.train, prepared.shape

    rest, held_out = hold_out(train.targets, dataset, source.classes) if prepared.val is None else (None, None)
    mean, std = dataset.mean, dataset.std
    if mean is None or std is None or (len(mean) == 3 and shape.channels == 1):
        sample_of_train = sample_images(train, rest, shape, dataset)
        mean, std = channel_statistics(sample_of_train)
        warn_of_flat_images(sample_of_train)
    numbers = _per_channel(mean, shape.channels), _per_channel(std, shape.channels)
    rules = source.train.images.rules if isinstance(source.train.images, LazyImages) else PixelRules()
    plain = shape.channels, shape.size, shape.kept_size, shape.interpolation
    image_input = ImageInput(*plain, *numbers, rules, shape.resizing)
    if dataset.sampler == "balanced" and not shuffle:
        raise ValueError("sampler=balanced: draws images at random; it needs trainer.shuffle=true")
    targets = train.targets if rest is None else train.targets[rest]
    balanced = targets if dataset.sampler == "balanced" else None
    how = augmentation, seed, drop_last, shuffle, balanced
    settings = EpochSettings(shape, image_input.statistics, *how, source.classes)

    def place(split: Split, indices: Tensor | None) -> Batches:
        if resident:
            assert isinstance(split.images, Tensor)
            return Resident(split.images, split.targets, settings, indices)
        split = split if indices is None else split.take(indices)
        return Streaming(split, settings, dataset, device, memory_format)

    def sample() -> Tensor:
        images = sample_images(train, rest, shape, dataset, most=min(2000, max(100, 2**22 // shape.size**2)))
        return image_input.normalise()(shape.centre(images))

    train_data, test_data = place(train, rest), place(prepared.test, None)
    val_data = test_data if by_test else place(prepared.val or train, held_out)
    which = "test as validation" if by_test else f"val (1 of {dataset.folds} folds)" if dataset.folds else "val"
    counts = f"{len(train_data)} train, {len(val_data)} {which}"
    counts += f", {len(test_data)} test, {len(source.classes)} classes"
    mib = f"{size / 2**20:,.1f} MiB of uint8"
    why = f", as {mib} of {free / 2**20:,.0f} free" if auto else ""
    where = f"resident, {mib}" if resident else f"streaming{why}"
    layout = f"; {source.layout}" if source.layout else ""
    return Datasets(
        train=train_data,
        val=val_data,
        test=test_data,
        classes=source.classes,
        input=image_input,
        shape=shape,
        description=f"{counts}, {shape.channels}x{shape.size}x{shape.size}, {where}{layout}",
        selected_on_test=by_test,
        sample=sample,
        skipped_before=prepared.skipped,
    )


def warn_of_flat_images(images: Tensor) -> None:
    """Log a warning where images have next to no content, as those of a range that was taken wrongly."""
    flat = sum(is_flat(image) for image in images)
    if flat > FLAT_FRACTION * len(images):
        advice = "see their files, and dataset.value_range if they have more than 8 bits a pixel"
        log.warning("%d of %d sampled training images are of one even level; %s", flat, len(images), advice)


def _per_channel(values: list[float], channels: int) -> list[float]:
    if len(values) not in (1, channels):
        raise ValueError(f"mean and std have {len(values)} values, the images {channels} channels")
    return list(values) * channels if len(values) == 1 else list(values)


def free_memory(device: torch.device) -> int:
    """Free bytes for a resident dataset: of the host, or of the GPU if that has fewer."""
    try:
        host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # unknown on this system, macOS for one
        host = 8 * 2**30
    if device.type == "cuda":
        return min(host, torch.cuda.mem_get_info(device)[0])
    return host
