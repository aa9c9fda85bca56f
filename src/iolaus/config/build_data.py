"""From a checked configuration to data: what is read, the shape that images are brought to, and the three splits."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from iolaus.augment.pipeline import Augmentation, name_of, per_sample
from iolaus.config.check import RunConfig
from iolaus.data.open import Datasets, cached_source, image_shape, open_data
from iolaus.data.ranges import pixel_rules
from iolaus.data.shape import ImageShape
from iolaus.data.sources import read_source
from iolaus.data.split import LazyImages, Source, Split
from iolaus.errors import ConfigError, first_line, problems_of
from iolaus.methods.metrics import TOP, TOP_ACCURACY
from iolaus.methods.schedules import is_plateau
from iolaus.settings import DatasetSettings

TIMM_BUILDER = "iolaus.models.timm.build"
ENLARGED = 2  # times, from which on a word is due
ImageFunction = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Inputs:
    """The dataset as its reader gives it, its settings for this model, and the shape that images are brought to.

    notes: what the log says of the data.
    """

    source: Source
    settings: DatasetSettings
    shape: ImageShape
    notes: list[str]


def check_split(name: str, split: Split, source: Source) -> None:
    """Raise ValueError for a split that is not what a Source holds: a reader of the user's may give anything."""
    if not len(split.targets):
        raise ValueError(f"the {name} split holds no image")
    images, targets, classes = split.images, torch.as_tensor(split.targets), source.classes
    if isinstance(images, Tensor) and (
        images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3, source.channels)
    ):
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise ValueError(f"images of the {name} split: must be uint8 (n, channels, height, width), and are {found}")
    if len(images) != len(targets):
        raise ValueError(f"the {name} split has {len(images):,} images and {len(targets):,} targets")
    if targets.dtype != torch.int64 or targets.ndim != 1:
        found = f"{str(targets.dtype).removeprefix('torch.')} {tuple(targets.shape)}"
        raise ValueError(f"targets of the {name} split: must be int64 (n,), and are {found}")
    if not 0 <= int(targets.min()) <= int(targets.max()) < len(classes):
        found = f"{int(targets.min())} to {int(targets.max())}"
        raise ValueError(f"targets of the {name} split: must be below the {len(classes)} classes, and are {found}")


def read_inputs(config: RunConfig) -> Inputs:
    """Read the dataset. Raises ConfigError where that fails, or where the user's function fails on the first image."""
    settings, node = config.dataset, config.dataset_node
    reader = node.partial()
    with problems_of("dataset"):
        source = cached_source(dict(node.config), lambda: read_source(reader, inspect.signature(node.target)))
        for name, split in source.splits.items():
            check_split(name, split, source)
        notes = [*source.notes, *set_pixel_rules(source, settings)]
        initial = config.initial.build_function() if config.initial else None
        shape = image_shape(source, settings, config.model, initial)
        if own := pretrained_input(config, shape.size):  # a pretrained model sees what it was made for
            if settings.crop_fraction is not None:
                own.pop("crop_fraction", None)
            settings = replace(settings, **own)
            shape = image_shape(source, settings, config.model, initial)
        else:
            notes += advise_on_size(source, shape, config)
        if initial is not None:
            try_function("initial", initial, shape.preprocess, source)
    if settings.cache_dir is not None and initial is None and not isinstance(source.train.images, LazyImages):
        notes.append(f"dataset.cache_dir={settings.cache_dir}: not used; these images come from no picture files")
    check_monitors(config, len(source.classes))
    return Inputs(source, settings, shape, notes)


def advise_on_size(source: Source, shape: ImageShape, config: RunConfig) -> list[str]:
    """A note where the images are enlarged more than twofold, and not because the model takes no smaller ones."""
    side, size = source.shorter_side, shape.size
    if config.initial or not side or size <= ENLARGED * side or size == config.model.min_image_size:
        return []
    key = "model.image_size" if config.model.image_size else "dataset.image_size"
    smaller = max(side, config.model.min_image_size)
    saved = f"{key}={smaller} trains on {(size / smaller) ** 2:.0f} times fewer pixels"
    return [f"the shorter side of the images is about {side} pixels; they are enlarged to {size}; {saved}"]


def set_pixel_rules(source: Source, settings: DatasetSettings) -> list[str]:
    """Decide how the source's pictures become bytes (`LazyImages.rules`); returns notes for the log."""
    if not isinstance(source.train.images, LazyImages):
        return []
    rules, notes = pixel_rules(source.train.images, settings)
    for split in source.splits.values():
        if isinstance(split.images, LazyImages):
            split.images.rules = rules
    return notes


def check_monitors(config: RunConfig, num_classes: int) -> None:
    """Refuse to watch the top-5 accuracy where it is always 1, and so not measured. Raises ConfigError."""
    stopping, plateau = config.early_stopping_node, is_plateau(config.scheduler_node.target)
    watched = [("objective", name) for name in config.launch.objectives]
    watched += [("early_stopping.monitor", str(stopping.arguments.get("monitor")))] if stopping else []
    watched += [("scheduler.monitor", config.scheduler.monitor)] if plateau else []
    for key, name in watched:
        if name.endswith(TOP_ACCURACY) and num_classes <= TOP:
            raise ConfigError(f"{key}={name}: the data have {num_classes} classes; it needs {TOP + 1} or more")


def data_fingerprint(source: Source) -> str:
    """What tells one dataset from another, cheaply: `1438 train, 359 test, 10 classes, 5a1f0c93d2`.

    The last part is a hash of the class names and of every image's class.
    """
    digest = hashlib.blake2b("\n".join(source.classes).encode(errors="surrogateescape"), digest_size=5)
    for split in source.splits.values():
        digest.update(split.targets.numpy().tobytes())
    counts = ", ".join(f"{len(split.targets)} {name}" for name, split in source.splits.items())
    return f"{counts}, {len(source.classes)} classes, {digest.hexdigest()}"


def pretrained_input(config: RunConfig, size: int) -> dict[str, Any]:
    """mean, std, interpolation and crop_fraction (of photographs) that a pretrained model of timm was made with."""
    arguments = config.model_node.arguments
    if not arguments.get("pretrained") or config.model_node.path != TIMM_BUILDER:
        return {}
    from iolaus.models.timm import input_of

    return input_of(arguments["name"], size)


def build_data(config: RunConfig, inputs: Inputs, device: torch.device, memory_format: torch.memory_format) -> Datasets:
    """The three splits, placed where they are trained from, with the augmentation of the training images."""
    source, settings, shape = inputs.source, inputs.settings, inputs.shape
    augmentation = build_augmentation(config, inputs) if config.augmentation_node else None
    with problems_of("dataset"):
        return open_data(
            source,
            settings,
            shape,
            augmentation=augmentation,
            seed=config.launch.seed,
            device=device,
            memory_format=memory_format,
            drop_last=config.trainer.drop_last,
            shuffle=config.trainer.shuffle,
        )


def build_augmentation(config: RunConfig, inputs: Inputs) -> Augmentation:
    """The augmentation with the user's transform in it, tried on one image."""
    assert config.augmentation_node is not None
    made: Augmentation = config.augmentation_node.build(mirror=inputs.settings.mirror)
    with problems_of("augmentation"):
        made.check_size(inputs.shape.kept_size, inputs.shape.size)
    if config.transform is None:
        return made
    transform = config.transform.build_function()

    def call(image: Tensor) -> Tensor:
        return per_sample(transform, inputs.shape.preprocess(image), [0])

    with problems_of("augmentation"):
        try_function("transform", transform, call, inputs.source)
    return replace(made, transform=transform)


def try_function(key: str, function: ImageFunction, call: ImageFunction, source: Source) -> None:
    """Let a function of the user's make its first image, here and not in the middle of a run."""
    images = source.train.images
    image = images[:1] if isinstance(images, Tensor) else next(images.readable(range(len(images))))
    try:
        call(image)
    except Exception as error:  # whatever the user's code raises
        if isinstance(error, ValueError) and str(error).startswith(f"{key}="):
            raise
        why = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{key}={name_of(function)}: fails on the first image ({why})") from error
