"""Split a source, bring its images to shape, and place them: on the device, or behind reading processes."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iolaus.data.resident import Resident
from iolaus.data.shape import channel_statistics
from iolaus.data.splits import Source, Split, stratified
from iolaus.data.streaming import Streaming

# A resident dataset takes at most this part of the memory that is free, of the host and of the device.
FREE_MEMORY_FRACTION = 0.25


@dataclass
class Datasets:
    """The three splits, and what a model must know of them."""

    train: Any
    val: Any
    test: Any
    classes: list[str]
    channels: int
    image_size: int
    description: str
    selected_on_test: bool

    def close(self) -> None:
        """End the processes that read images, if there are any."""
        for split in (self.train, self.val, self.test):
            split.close()


def input_shape(source: Source, dataset: Any, model: Any) -> tuple[int, int]:
    """(channels, size) of the images that reach the model: what it wants, else what the dataset gives.

    dataset, model: their settings (settings.DatasetSettings, settings.ModelSettings).
    """
    size = model.image_size or dataset.image_size or source.image_size
    return model.in_channels or source.channels, max(size, model.min_image_size)


def open_data(
    source: Source, dataset: Any, *, channels: int, image_size: int, augmentation: Any, seed: int,
    device: torch.device,
) -> Datasets:  # fmt: skip
    """Split, shape and place a dataset. Raises ValueError where an image can't be read or a class has too few."""
    select_on_test = dataset.validation == "test"
    splits = {"train": source.train, "test": source.test}
    if not select_on_test:
        rest, held_out = stratified(source.train.targets, dataset.validation, dataset.validation_seed)
        splits |= {"train": source.train.take(rest), "val": source.train.take(held_out)}

    size = channels * image_size**2 * (len(source.train.targets) + len(source.test.targets))
    resident = dataset.residency == "resident"
    if dataset.residency == "auto":
        resident = size <= FREE_MEMORY_FRACTION * free_memory(device)
    if resident:
        splits = {name: split.shaped(channels, image_size) for name, split in splits.items()}

    mean, std = dataset.mean, dataset.std
    if mean is None or (len(mean) == 3 and channels == 1):
        mean, std = channel_statistics(splits["train"].images, channels, image_size)
    statistics = _per_channel(mean, channels), _per_channel(std, channels)

    def place(split: Split) -> Any:
        common = (split, len(source.classes), statistics, augmentation, seed, device)
        if resident:
            return Resident(*common)
        return Streaming(*common, channels=channels, image_size=image_size, num_workers=dataset.num_workers)

    placed = {name: place(split) for name, split in splits.items()}
    val = placed["test"] if select_on_test else placed["val"]
    counts = f"{len(placed['train'])} train, {len(val)} {'test as validation' if select_on_test else 'val'}, "
    where = f"resident, {size / 2**20:.1f} MiB of uint8" if resident else "streaming"
    return Datasets(
        train=placed["train"], val=val, test=placed["test"], classes=source.classes, channels=channels,
        image_size=image_size, selected_on_test=select_on_test,
        description=f"{counts}{len(placed['test'])} test, {len(source.classes)} classes, "
        f"{channels}x{image_size}x{image_size}, {where}",
    )  # fmt: skip


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
