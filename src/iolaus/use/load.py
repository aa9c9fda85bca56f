"""From a run's files to its model: `iolaus.load(RUN)`. The data that it was trained on are not needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iolaus.config.build import wants_channels_last
from iolaus.config.build_data import TIMM_BUILDER, read_inputs
from iolaus.config.check import (
    INJECTED,
    LAUNCHER_SETTINGS,
    check,
    read_own_node,
    read_settings,
    split_settings,
)
from iolaus.config.node import Node, read_function, read_node
from iolaus.data.image_input import ImageInput
from iolaus.data.open import Datasets, clear_source_cache, open_data
from iolaus.data.split import LazyImages, Source
from iolaus.errors import ConfigError, first_line, nearest, problems_of
from iolaus.machine import hardware
from iolaus.machine.process import collect_as_usual
from iolaus.settings import DatasetSettings, Trainer
from iolaus.use.classifier import Classifier
from iolaus.use.find import SavedModel, Which, read_model


@dataclass(frozen=True)
class ModelConfig:
    """The parts of a run's configuration that its model needs; the others, the user's own classes too, may be lost."""

    node: Node
    trainer: Trainer
    initial: Callable[[Tensor], Tensor] | None


def load(
    run: str | Path = "last", *, weights: Which = "best", device: str = "auto", precision: str | None = None
) -> Classifier:
    """Load the model of a run, with all that it needs to judge pictures.

    run: a run's folder, a study's (its best run), `last`, or a checkpoint. weights: best or last. precision: auto,
    fp32, bf16 or fp16; None is the run's own. Raises ConfigError, one line, for what is missing or damaged.
    """
    return load_model(read_model(run, weights), device, precision)


def load_model(saved: SavedModel, device: str = "auto", precision: str | None = None) -> Classifier:
    """Build the model that a checkpoint is of, and load its weights. Raises ConfigError."""
    collect_as_usual()
    if precision not in (allowed := (None, "auto", *hardware.DTYPES)):
        raise ConfigError(f"precision={precision}: {nearest(str(precision), map(str, allowed[1:]))}")
    config = read_model_config(saved.config)
    with problems_of("trainer"):
        place = hardware.pick_device(device)
        precision = hardware.pick_precision(precision or _precision_for(config.trainer.precision, place), place)
    image_input, classes = saved.input, saved.classes
    if image_input is None or not classes:
        data = open_saved_data(saved)
        image_input, classes = image_input or data.input, classes or data.classes
    model = build_for(config.node, len(classes), image_input)
    try:
        model.load_state_dict(saved.weights)
    except RuntimeError as error:
        raise ConfigError(f"{saved.file}: does not fit the model of its configuration ({first_line(error)})") from error
    channels_last = wants_channels_last(config.trainer.channels_last, model, place, precision)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = model.eval().requires_grad_(False).to(place, memory_format=memory_format)  # type: ignore[call-overload]
    shape = image_input.shape(config.initial)
    tta = config.trainer.tta
    return Classifier(model, classes, image_input, shape, place, precision, tta, memory_format, saved.file)


def read_model_config(config: Mapping[str, Any]) -> ModelConfig:
    """Check what a model needs of a saved configuration. Raises ConfigError with every problem."""
    problems: list[str] = []
    if missing := [key for key in ("model", "trainer", "dataset") if not isinstance(config.get(key), Mapping)]:
        raise ConfigError(*(f"{key}: missing; the saved configuration has no such group" for key in missing))
    own, node = split_settings(config["model"], LAUNCHER_SETTINGS["model"])
    read_settings("model", LAUNCHER_SETTINGS["model"], own, problems)
    model_node = read_node("model", node, problems, INJECTED["model"])
    trainer = read_own_node("trainer", config["trainer"], problems)["trainer"]
    initial = read_function("dataset.initial", config["dataset"].get("initial"), problems)
    if problems or model_node is None or trainer is None:
        raise ConfigError(*problems)
    return ModelConfig(model_node, trainer, initial.build_function() if initial else None)


def build_for(node: Node, num_classes: int, image_input: ImageInput) -> nn.Module:
    """The model of a node, to be filled with saved weights: it starts from no others, and draws no random number."""
    if node.arguments.get("grad_checkpointing"):  # of use to a backward pass alone
        node = node.replace(grad_checkpointing=False)
    if node.arguments.get("pretrained"):
        stem: dict[str, str] = {}
        if node.path == TIMM_BUILDER and node.arguments.get("stem", "auto") == "auto":
            stem = {"stem": "large"}  # which `auto` is under pretrained=true, and may not be without
        node = node.replace(pretrained=False, **stem)
    with torch.random.fork_rng(devices=[]):
        size = {"in_channels": image_input.channels, "image_size": image_input.size}
        model: nn.Module = node.build(num_classes=num_classes, **size)
    return model


def open_saved_data(saved: SavedModel, config: Mapping[str, Any] | None = None) -> Datasets:
    """The data of a run, or of another `config`, to be read one by one with the run's own `input`.

    Where the run saved no input, it is computed from the data once more. Raises ConfigError.
    """
    checked = check(dict(saved.config if config is None else config))
    clear_source_cache()  # the files may be others than those that this process has seen
    try:
        inputs = read_inputs(checked)
        settings, shape = replace(inputs.settings, residency="streaming", cache_dir=None), inputs.shape
        if saved.input is not None:
            settings = replace(settings, mean=saved.input.mean, std=saved.input.std)
            shape = saved.input.shape(inputs.shape.initial)
            read_alike(inputs.source, saved.input, settings)
        with problems_of("dataset"):
            cpu = torch.device("cpu")
            return open_data(inputs.source, settings, shape, augmentation=None, seed=checked.launch.seed, device=cpu)
    except ConfigError as error:
        if saved.input is not None:
            raise
        why = f"{saved.folder}: does not say what a picture needs (a run of before); its data would"
        raise ConfigError(f"{why}: {first_line(error)}") from error


def read_alike(source: Source, image_input: ImageInput, settings: DatasetSettings) -> None:
    """Have all pictures of a source made into bytes as the run's training images were."""
    rules = replace(image_input.pixels, max_pixels=settings.max_pixels)
    for split in source.splits.values():
        if isinstance(split.images, LazyImages):
            split.images.rules = rules


def _precision_for(chosen: str, device: torch.device) -> str:
    """The run's precision, or auto where this machine's device can't have it."""
    try:
        return hardware.pick_precision(chosen, device)
    except ValueError:
        return "auto"
