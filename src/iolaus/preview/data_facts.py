"""What the data are: how many images each class has in each split, and the sizes of the images as they are read."""

from collections.abc import Sequence

import torch
from torch import Tensor

from iolaus.data.open import Datasets
from iolaus.data.split import Source

OPENED_IMAGES = 200  # images that are opened for their sizes


def count_classes(data: Datasets) -> dict[str, list[int]]:
    """The number of images of each class, by split; validation on the test set is no split of its own."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    if data.selected_on_test:
        del splits["val"]
    most = len(data.classes)
    return {name: torch.bincount(split.targets.cpu(), minlength=most).tolist() for name, split in splits.items()}


def describe_sizes(source: Source) -> str:
    """The sizes of the training images, width × height in pixels: `all 28 x 28`, or the smallest to the largest."""
    images = source.train.images
    if isinstance(images, Tensor):
        return f"all {images.shape[-1]} x {images.shape[-2]}"
    step = -(-len(images) // OPENED_IMAGES)
    sizes = [(image.shape[-1], image.shape[-2]) for image in images.readable(range(0, len(images), step))]
    seen = f" (of {len(sizes)} opened)" if step > 1 else ""
    return f"{summarise_sizes(sizes)}{seen}"


def summarise_sizes(sizes: Sequence[tuple[int, int]]) -> str:
    """(width, height) pairs in a few words, by their area."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    smallest, middle, largest = (ordered[place] for place in (0, len(ordered) // 2, -1))
    if smallest == largest:
        return f"all {smallest[0]} x {smallest[1]}"
    words = (("smallest", smallest), ("median", middle), ("largest", largest))
    return ", ".join(f"{word} {width} x {height}" for word, (width, height) in words)
