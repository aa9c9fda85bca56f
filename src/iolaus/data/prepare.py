"""Images after the initial step, for a run and for the next run of its sweep; a sample of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from iolaus.data.cache import code_of, read_through_cache
from iolaus.data.reading import read_all
from iolaus.data.shape import ImageShape
from iolaus.data.split import LazyImages, Source, Split, join
from iolaus.settings import DatasetSettings


@dataclass
class PreparedImages:
    """Train and test, ready to be split and placed. shape: the steps that are left to do with their images.

    val: the dataset's own validation set, None where a part of train is to be held out. skipped: the number of
    unreadable images; bytes: the memory of resident images; key: all that the images depend on.
    """

    train: Split
    test: Split
    val: Split | None
    shape: ImageShape
    skipped: int
    bytes: int
    key: tuple[object, ...]


def prepare_images(
    source: Source,
    dataset: DatasetSettings,
    shape: ImageShape,
    resident: bool,
    device: torch.device,
    memory_format: torch.memory_format,
) -> PreparedImages:
    """Take the initial step, unless it is to be taken while streaming. The next run of a sweep gets the same images."""
    # the initial function goes into the key by its code, as each run of a sweep builds its own object
    steps = replace(shape, initial=None), code_of(shape.initial), dataset.cache_dir, dataset.on_bad_image
    rules = repr(source.train.images.rules) if isinstance(source.train.images, LazyImages) else None
    joins = source.val is not None and (dataset.folds is not None or dataset.validation == "test")
    key = (*steps, rules, resident, str(device), memory_format, joins)
    if source.prepared is not None and source.prepared.key == key:
        return source.prepared
    source.prepared = None  # free its memory before the new images are made
    given = source.splits
    if joins:
        given["train"] = join(given["train"], given.pop("val"))
    splits, skipped, size = {}, 0, 0
    for name, split in given.items():
        made, missing = shape_split(split, dataset, shape, resident)
        if resident:
            assert isinstance(made.images, Tensor)
            unchanged = made is split
            images = made.images.contiguous(memory_format=memory_format).to(device)
            made, size = Split(images, made.targets), size + images.numel()
            if unchanged and device.type == "cpu":
                split.images = images  # the same images: the source does not hold a second copy
        splits[name] = made
        skipped += missing
    shaped = resident or splits["train"] is not given["train"]
    left = replace(shape, initial=None) if shaped else shape
    source.prepared = PreparedImages(splits["train"], splits["test"], splits.get("val"), left, skipped, size, key)
    return source.prepared


def shape_split(split: Split, dataset: DatasetSettings, shape: ImageShape, resident: bool) -> tuple[Split, int]:
    """Shape a split's images, in memory or mapped from the cache; images to be streamed stay as they are.

    Returns (split without unreadable images, number of these). Raises BrokenImage.
    """
    images, targets = split.images, split.targets
    if dataset.cache_dir is not None and (isinstance(images, LazyImages) or shape.initial is not None):
        made, readable = read_through_cache(images, shape, dataset, Path(dataset.cache_dir))
    elif not resident:
        return split, 0
    elif isinstance(images, LazyImages):
        made, readable = read_all(images, shape, dataset)
    elif shape.initial is None and images.shape[1:] == (shape.channels, shape.kept_size, shape.kept_size):
        return split, 0
    else:
        return Split(torch.cat([shape.preprocess(chunk) for chunk in torch.split(images, 1000)]), targets), 0
    missing = int((~readable).sum())
    return Split(made[readable] if missing else made, targets[readable] if missing else targets), missing


def sample_images(
    split: Split, indices: Tensor | None, shape: ImageShape, settings: DatasetSettings, most: int = 2000
) -> Tensor:
    """At most `most` evenly spaced images of a part of a split, shaped, without unreadable ones.

    They are the same wherever the images live, and so is what is computed from them. settings: how they are read.
    """
    indices = torch.arange(len(split.targets)) if indices is None else indices
    chosen = indices[:: -(-len(indices) // most)]
    if isinstance(split.images, Tensor):
        return shape.preprocess(split.images[chosen.to(split.images.device)].cpu())
    skip = replace(settings, on_bad_image="skip")  # what can't be read is told when it is to be trained on
    made, readable = read_all(split.images.take(chosen), shape, skip, sample=True)
    return made[readable]
