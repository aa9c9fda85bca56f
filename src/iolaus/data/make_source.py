"""From a dataset's items to a Source: images in memory or read one by one, their channels and their size."""

import statistics
from typing import SupportsInt

import numpy as np
import torch
from torch import Tensor

from iolaus.data.image_files import ImageFiles
from iolaus.data.split import ImageDataset, LazyImages, Source, Split

PHOTOGRAPH_SIZE = 224  # pixels of pictures that do not agree on a size
SAMPLE_COUNT = 16  # items of a dataset that does not know its files


def split_of(dataset: ImageDataset) -> Split:
    """The images and targets of a dataset in torchvision's manner; torchvision's own may have all in one array."""
    if not len(dataset):
        raise ValueError(f"{type(dataset).__name__} holds no images")
    targets = next((getattr(dataset, n) for n in ("targets", "labels", "_labels") if hasattr(dataset, n)), None)
    if targets is None or np.asarray(targets).dtype.kind not in "biu":
        labels = (dataset[i][1] for i in range(len(dataset))) if targets is None else targets
        targets = [class_index(label, type(dataset).__name__) for label in labels]
    targets = torch.as_tensor(np.asarray(targets), dtype=torch.int64)
    if len(targets) != len(dataset):
        raise ValueError(f"{type(dataset).__name__} holds {len(dataset)} images, but {len(targets)} targets")
    data = getattr(dataset, "data", None)
    if type(dataset).__module__.startswith("torchvision.") and isinstance(data, np.ndarray | Tensor):
        images = torch.as_tensor(data)
        if images.ndim == 3:
            images = images.unsqueeze(1)
        elif images.shape[-1] in (1, 3):
            images = images.permute(0, 3, 1, 2)  # in memory they stay channels-last, which convolutions like
        return Split(images, targets)
    return Split(LazyImages(dataset, range(len(dataset))), targets)


def class_index(label: SupportsInt, name: str) -> int:
    """The class index that an item of a dataset of this name has. Raises ValueError where it has none."""
    try:
        index = int(label)
        is_whole = isinstance(label, str) or bool(label == index)
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"{name} has targets such as {label!r}; must be class indices: 0, 1, …")
    return index


def make_source(train: Split, test: Split, classes: list[str], val: Split | None = None) -> Source:
    """A Source with the channels and the size of its training images.

    Images read one by one are RGB if any of them is, and have one size if a sample of them agrees on one: its shorter
    side, for oblong photographs at most 224. Else they are brought to 224.
    """
    if isinstance(train.images, Tensor):
        channels, size = train.images.shape[1], train.images.shape[-1]
        return Source(train, test, classes, channels, size, val, shorter_side=min(train.images.shape[-2:]))
    channels, sizes = (
        files_shape(train.images) if isinstance(train.images.dataset, ImageFiles) else sample_shape(train.images)
    )
    size = PHOTOGRAPH_SIZE
    if len(sizes) == 1:
        height, width = next(iter(sizes))
        size = height if height == width else min(height, width, PHOTOGRAPH_SIZE)
    return Source(train, test, classes, channels, size, val, shorter_side=statistics.median_low(map(min, sizes)))


def files_shape(images: LazyImages) -> tuple[int, set[tuple[int, int]]]:
    """(channels, sizes) of image files by their headers. Raises BrokenImage where none can be read."""
    assert isinstance(images.dataset, ImageFiles)
    headers = images.dataset.headers_of(images.indices)
    if not headers:
        next(images.readable(range(len(images))))
    channels = 1 if all(header.is_grey for header in headers.values()) else 3
    return channels, {(header.height, header.width) for header in headers.values()}


def sample_shape(images: LazyImages) -> tuple[int, set[tuple[int, int]]]:
    """(channels, sizes) of a sample of images. Raises BrokenImage where none can be read."""
    step = -(-len(images) // SAMPLE_COUNT)
    shapes = [image.shape for image in images.readable(range(0, len(images), step))]
    return max(shape[1] for shape in shapes), {(shape[2], shape[3]) for shape in shapes}
