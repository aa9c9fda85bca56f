"""Split a source, bring its images to shape, and place them: on the device, or behind reading processes."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iolaus.augment.pipeline import Augmentation
from iolaus.data.cache import cached, source_of
from iolaus.data.reading import read_all
from iolaus.data.resident import Normalise, Resident
from iolaus.data.shape import ImageShape, channel_statistics
from iolaus.data.splits import Photos, Source, Split, stratified
from iolaus.data.streaming import Streaming
from iolaus.settings import DatasetSettings

# A resident dataset takes at most this part of the memory that is free, of the host and of the device.
FREE_MEMORY_FRACTION = 0.25


@dataclass
class Datasets:
    """The three splits, and what a model must know of them.

    sample: a function that gives some evenly spaced training images as the model sees them, not augmented, 2,000 small
    ones, fewer large ones: (n, channels, size, size) float32 on the CPU. skipped_before: unreadable images, found in
    advance.
    """

    train: Any
    val: Any
    test: Any
    classes: list[str]
    shape: ImageShape
    description: str
    selected_on_test: bool
    sample: Callable[[], Tensor]
    skipped_before: int = 0

    @property
    def skipped_images(self) -> int:
        """How many images could not be read so far and were left out (dataset.on_bad_image=skip)."""
        streamed = (split for split in (self.train, self.val, self.test) if isinstance(split, Streaming))
        return self.skipped_before + len(set().union(*(split.reader.skipped for split in streamed)))

    def close(self) -> None:
        """End the processes that read images, if there are any."""
        for split in (self.train, self.val, self.test):
            split.close()


_opened: dict[str, Source] = {}


def reuse(node: Mapping[str, Any], read: Callable[[], Source]) -> Source:
    """`read()`, or what it gave the last time for the same reader: the runs of a sweep share their data."""
    key = json.dumps(node, sort_keys=True)
    if key not in _opened:
        forget()
        _opened[key] = read()
    return _opened[key]


def forget() -> None:
    """Let go of the data that `reuse` has kept."""
    _opened.clear()


def image_shape(source: Source, dataset: DatasetSettings, model: Any, initial: Any) -> ImageShape:
    """What reaches the model (settings.ModelSettings): what it wants, else what the dataset gives."""
    size = max(model.image_size or dataset.image_size or source.image_size, model.min_image_size)
    kept_size = int(size / (dataset.crop_fraction or 1.0) + 1e-6)
    return ImageShape(model.in_channels or source.channels, size, kept_size, dataset.interpolation, initial)


def open_data(
    source: Source, dataset: DatasetSettings, shape: ImageShape, *, augmentation: Augmentation | None, seed: int,
    device: torch.device, memory_format: torch.memory_format = torch.contiguous_format, drop_last: bool = True,
    shuffle: bool = True,
) -> Datasets:  # fmt: skip
    """Split, shape and place a dataset. Raises ValueError where an image can't be read or a class has too few."""
    size = shape.channels * shape.kept_size**2 * (len(source.train.targets) + len(source.test.targets))
    taken = source.prepared.bytes if source.prepared else 0  # by a sweep's last run: as good as free
    free = free_memory(device) + taken
    auto = dataset.residency == "auto"
    resident = size <= FREE_MEMORY_FRACTION * free if auto else dataset.residency == "resident"
    prepared = prepare(source, dataset, shape, resident, device, memory_format)
    train, shape = prepared.train, prepared.shape

    by_test = dataset.validation == "test"
    rest, held_out = None, None
    if not isinstance(dataset.validation, str):
        rest, held_out = stratified(train.targets, dataset.validation, dataset.validation_seed)
    mean, std = dataset.mean, dataset.std
    if mean is None or std is None or (len(mean) == 3 and shape.channels == 1):
        mean, std = channel_statistics(sample(train, rest, shape))
    statistics = _per_channel(mean, shape.channels), _per_channel(std, shape.channels)

    def place(split: Split, indices: Tensor | None, augmentation: Augmentation | None = None) -> Any:
        how: Any = {"augmentation": augmentation, "seed": seed, "drop_last": drop_last, "shuffle": shuffle}
        if resident:
            return Resident(split.images, split.targets, shape, statistics, indices=indices, **how)  # type: ignore[arg-type]
        split = split if indices is None else split.take(indices)
        return Streaming(split, shape, statistics, dataset, device, memory_format=memory_format, **how)

    placed = place(train, rest, augmentation)
    test = place(prepared.test, None)
    val = test if by_test else place(train, held_out)
    mib = f"{size / 2**20:,.1f} MiB of uint8"
    where = f"resident, {mib}" if resident else f"streaming{f', as {mib} of {free / 2**20:,.0f} free' if auto else ''}"
    return Datasets(
        train=placed, val=val, test=test, classes=source.classes, shape=shape, selected_on_test=by_test,
        skipped_before=prepared.skipped,
        sample=lambda: Normalise(*statistics, shape.size, torch.device("cpu"))(
            shape.centre(sample(train, rest, shape, most=min(2000, max(100, 2**22 // shape.size**2))))
        ),
        description=f"{len(placed)} train, {len(val)} {'test as validation' if by_test else 'val'}, {len(test)} test, "
        f"{len(source.classes)} classes, {shape.channels}x{shape.size}x{shape.size}, {where}",
    )  # fmt: skip


@dataclass
class Prepared:
    """Train and test as they are split and placed, and what is left to do with their images.

    skipped: how many could not be read; bytes: what resident images take; key: what all of it depends on.
    """

    train: Split
    test: Split
    shape: ImageShape
    skipped: int
    bytes: int
    key: Any


def prepare(
    source: Source, dataset: DatasetSettings, shape: ImageShape, resident: bool, device: torch.device,
    memory_format: torch.memory_format,
) -> Prepared:  # fmt: skip
    """Take the initial step, now or while streaming. What was made last is kept, for a sweep's next run."""
    # a function by its code, as each run of a sweep makes an object of its own
    key = (replace(shape, initial=None), source_of(shape.initial), resident, str(device), memory_format,
           dataset.cache_dir, dataset.on_bad_image)  # fmt: skip
    if source.prepared is not None and source.prepared.key == key:
        return source.prepared
    source.prepared = None  # its memory is free before the new one is made
    splits, skipped, size = [], 0, 0
    for split in (source.train, source.test):
        made, missing = shaped(split, dataset, shape, resident)
        if resident:
            assert isinstance(made.images, Tensor)
            unchanged = made is split
            images = made.images.contiguous(memory_format=memory_format).to(device)
            made, size = Split(images, made.targets), size + images.numel()
            if unchanged and device.type == "cpu":
                split.images = images  # the same images: the source does not hold them a second time
        splits.append(made)
        skipped += missing
    done = resident or splits[0] is not source.train
    left = replace(shape, initial=None) if done else shape
    source.prepared = Prepared(splits[0], splits[1], left, skipped, size, key)
    return source.prepared


def shaped(split: Split, dataset: DatasetSettings, shape: ImageShape, resident: bool) -> tuple[Split, int]:
    """The split with its images shaped, in memory or mapped from the cache; as it is where they are to be streamed.

    Returns (split without images that can't be read, how many these are). Raises BrokenImage.
    """
    images, targets = split.images, split.targets
    if dataset.cache_dir is not None and (isinstance(images, Photos) or shape.initial is not None):
        made, readable = cached(images, shape, dataset, Path(dataset.cache_dir))
    elif not resident:
        return split, 0
    elif isinstance(images, Photos):
        made, readable = read_all(images, shape, dataset)
    elif shape.initial is None and images.shape[1:] == (shape.channels, shape.kept_size, shape.kept_size):
        return split, 0
    else:
        return Split(torch.cat([shape.bring(chunk) for chunk in images.split(1000)]), targets), 0
    missing = int((~readable).sum())
    return Split(made[readable] if missing else made, targets[readable] if missing else targets), missing


def sample(split: Split, indices: Tensor | None, shape: ImageShape, most: int = 2000) -> Tensor:
    """At most `most` evenly spaced images of a part of a split, shaped; photos that can't be read are left out.

    The same ones wherever the images live, so that what is computed of them does not depend on that.
    """
    indices = torch.arange(len(split.targets)) if indices is None else indices
    chosen = indices[:: -(-len(indices) // most)]
    if isinstance(split.images, Tensor):
        return shape.bring(split.images[chosen.to(split.images.device)].cpu())
    return torch.cat([shape.bring(image) for image in split.images.take(chosen).readable(range(len(chosen)))])


def _per_channel(values: list[float], channels: int) -> Tensor:
    if len(values) not in (1, channels):
        raise ValueError(f"mean and std have {len(values)} values, the images {channels} channels")
    return torch.tensor(values * channels if len(values) == 1 else values).view(1, channels, 1, 1)


def free_memory(device: torch.device) -> int:
    """Bytes that are free where a resident dataset would live: the host, and the GPU if it is one."""
    try:
        host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # a system that does not say, macOS among them
        host = 8 * 2**30
    if device.type == "cuda":
        return min(host, torch.cuda.mem_get_info(device)[0])
    return host
