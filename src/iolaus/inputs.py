"""Configuration -> data: what is read, what images are brought to for the model, and the three splits."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from iolaus import config
from iolaus.augment.pipeline import name_of, per_sample
from iolaus.data.open import Datasets, image_shape, open_data, reuse
from iolaus.data.shape import ImageShape
from iolaus.data.sources import read
from iolaus.data.splits import Source
from iolaus.errors import first_line, problems_of
from iolaus.settings import DatasetSettings, Trainer


def build_source(plain: dict[str, Any]) -> tuple[Source, DatasetSettings, ImageShape]:
    """The dataset as its reader gives it, its settings, and what images are brought to for the model."""
    dataset, node = config.split_node("dataset", plain["dataset"])
    model, model_node = config.split_node("model", plain["model"])
    reader = config.factory("dataset", node)
    with problems_of("dataset"):
        source = reuse(node, lambda: read(reader, inspect.signature(reader.func)))
        initial = config.function("dataset.initial", dataset.initial)
        shape = image_shape(source, dataset, model, initial)
        if own := own_input(model_node, shape.size):  # a pretrained model sees what it was made for
            if dataset.crop_fraction is not None:
                own.pop("crop_fraction", None)
            dataset = replace(dataset, **own)
            shape = image_shape(source, dataset, model, initial)
        if initial is not None:
            try_function("initial", initial, shape.bring, source)
    return source, dataset, shape


def own_input(model: Mapping[str, Any], size: int) -> dict[str, Any]:
    """mean, std, interpolation and crop_fraction (of photographs) that a pretrained model of timm was made with."""
    if not model.get("pretrained") or model["_target_"] != "iolaus.models.timm.build":
        return {}
    from iolaus.models.timm import input_of

    return input_of(model["name"], size)


def build_data(
    plain: dict[str, Any], source: Source, dataset: DatasetSettings, shape: ImageShape, settings: Trainer, seed: int,
    device: torch.device, memory_format: torch.memory_format,
) -> Datasets:  # fmt: skip
    """The three splits, placed where they are trained from, with the augmentation of the training images."""
    augmentation = None
    if node := plain.get("augmentation"):
        transform = config.function("augmentation.transform", node.get("transform"))
        augmentation = config.build("augmentation", {**node, "transform": None}, mirror=dataset.mirror)
        augmentation = replace(augmentation, transform=transform)
        if transform is not None:
            with problems_of("augmentation"):
                try_function(
                    "transform", transform, lambda image: per_sample(transform, shape.bring(image), [0]), source
                )
    with problems_of("dataset"):
        return open_data(
            source, dataset, shape, augmentation=augmentation, seed=seed, device=device, memory_format=memory_format,
            drop_last=settings.drop_last, shuffle=settings.shuffle,
        )  # fmt: skip


def try_function(key: str, function: Any, call: Callable[[Tensor], Any], source: Source) -> None:
    """Let a function of the user's make its first image, here and not in the middle of a run."""
    images = source.train.images
    image = images[:1] if isinstance(images, Tensor) else next(images.readable(range(len(images))))
    try:
        call(image)
    except Exception as error:  # whatever somebody's code raises
        if isinstance(error, ValueError) and str(error).startswith(f"{key}="):
            raise
        why = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{key}={name_of(function)}: fails on the first image ({why})") from error
