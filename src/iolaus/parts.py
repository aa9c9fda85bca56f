"""Configuration -> objects: everything that a run is made of, built and tried before anything is written."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from iolaus import config, hardware, optim, schedules
from iolaus.augment.pipeline import name_of, per_sample
from iolaus.compiling import compile_in_place
from iolaus.data.open import Datasets, image_shape, open_data, reuse
from iolaus.data.shape import ImageShape
from iolaus.data.sources import read
from iolaus.data.splits import Source
from iolaus.errors import ConfigError, first_line, value_error
from iolaus.loop import Learner
from iolaus.losses import LossFn, loss_functions
from iolaus.seeds import WEIGHTS, seed_device, seed_of
from iolaus.settings import DatasetSettings, Launch, Trainer
from iolaus.start import defer_compiler, load_compiler
from iolaus.stopping import mode_of


@dataclass
class Parts:
    """The objects of one run.

    parameters: how many numbers the model learns or holds fixed. channels_last: whether images and weights lie so.
    compiled: whether torch.compile was asked for and worked.
    """

    launch: Launch
    settings: Trainer
    data: Datasets
    learner: Learner
    should_stop: Callable[[list[dict[str, float]]], bool]
    parameters: int
    channels_last: bool = False
    compiled: bool = False


def build_parts(plain: dict[str, Any]) -> Parts:
    """Build what a checked configuration (plain containers) names. Raises ConfigError, one line a problem."""
    launch = Launch(**{k: v for k, v in plain.items() if not isinstance(v, dict)})
    settings: Trainer = config.build("trainer", plain["trainer"])
    with problems_of("trainer"):
        device = hardware.pick_device(settings.device)
        precision = hardware.pick_precision(settings.precision, device)
    hardware.keep_freed_memory(settings.keep_freed_memory)
    (load_compiler if settings.compile else defer_compiler)()
    source, dataset, shape = build_source(plain)
    if settings.tta.startswith("flip") and not dataset.mirror:
        raise ConfigError(f"trainer.tta={settings.tta}: a mirrored image is of another class here "
                          "(dataset.mirror=false); allowed: none, resize_center_crop")  # fmt: skip
    num_classes = len(source.classes)
    model = build_model(plain["model"], num_classes, shape, launch.seed, device)
    channels_last = wants_channels_last(settings.channels_last, model, device, precision)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    if channels_last:
        model = model.to(memory_format=memory_format)
    data = build_data(plain, source, dataset, shape, settings, launch.seed, device, memory_format)
    loss_fn, evaluation_loss_fn = build_losses(plain["loss"], num_classes, device)
    optimizer = build_optimizer(plain["optimizer"], model)
    schedule = build_schedule(plain["scheduler"], optimizer, settings, len(data.train))
    learner = Learner(model, loss_fn, evaluation_loss_fn, optimizer, schedule, device, precision,
                      hardware.DTYPES[precision], settings.grad_clip_norm)  # fmt: skip
    compiled = False
    if settings.compile:
        blank = torch.zeros(min(settings.batch_size, len(data.train)), shape.channels, shape.size, shape.size)
        compiled = compile_in_place(model, blank.to(device, memory_format=memory_format), learner.autocast())
    stopping = config.build("early_stopping", plain["early_stopping"]) if plain.get("early_stopping") else None
    should_stop = stopping.should_stop if stopping else lambda history: False
    parameters = sum(p.numel() for p in model.parameters())
    return Parts(launch, settings, data, learner, should_stop, parameters, channels_last, compiled)


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
            dataset = replace(dataset, **own)
            shape = image_shape(source, dataset, model, initial)
        if initial is not None:
            try_function("initial", initial, shape.bring, source)
    return source, dataset, shape


def own_input(model: Mapping[str, Any], size: int) -> dict[str, Any]:
    """mean, std, interpolation and, for photographs, crop_fraction that a pretrained model of timm was made with."""
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


def wants_channels_last(chosen: str | bool, model: nn.Module, device: torch.device, precision: str) -> bool:
    """Whether images and weights are to lie in channels-last order; `auto` where convolutions are faster in it.

    That is on CPUs, and on GPUs with 16-bit numbers (PyTorch's channels-last tutorial); not of use without 2-D
    convolutions, whose absence makes of it a copy before the first linear layer.
    """
    if chosen != "auto":
        return bool(chosen)
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return convolves and (device.type == "cpu" or (device.type == "cuda" and precision != "fp32"))


def build_model(
    node: dict[str, Any], num_classes: int, images: ImageShape, seed: int, device: torch.device
) -> nn.Module:
    """The model on the device, its initial weights drawn from the seed; two blank images have gone through it."""
    _, node = config.split_node("model", node)
    seed_device(seed_of(seed, 0, WEIGHTS), device)
    channels, size = images.channels, images.size
    model = config.build("model", node, num_classes=num_classes, in_channels=channels, image_size=size).to(device)
    name = type(model).__name__
    model.eval()
    try:
        with torch.no_grad():
            shape = tuple(model(torch.zeros(2, channels, size, size, device=device)).shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(f"model: {name} does not take {channels}x{size}x{size} images ({first_line(error)}); "
                                 "try another model.image_size or model.in_channels") from error  # fmt: skip
    if shape != (2, num_classes):
        raise ConfigError(f"model: {name} gives {shape} for two images, not (2, {num_classes})")
    return model


def build_losses(node: dict[str, Any], num_classes: int, device: torch.device) -> tuple[LossFn, LossFn]:
    """(training, evaluation) loss, tried on made-up rows: more than classes, so that no shape fits by accident."""
    settings, node = config.split_node("loss", node)
    criterion = config.build("loss", node).to(device)
    loss_fns = loss_functions(criterion, settings.one_hot, num_classes)
    rows = num_classes + 1
    logits, indices = torch.zeros(rows, num_classes, device=device), torch.zeros(rows, dtype=torch.int64, device=device)
    try:
        with warnings.catch_warnings(action="ignore"):  # of the broadcasting that is about to fail
            loss = loss_fns[0](logits, indices)
    except (RuntimeError, ValueError, TypeError) as error:
        targets = "one-hot targets" if settings.one_hot else "class indices as targets"
        raise ConfigError(f"loss: {type(criterion).__name__} does not take {targets} ({first_line(error)}); "
                                 f"try loss.one_hot={str(not settings.one_hot).lower()}") from error  # fmt: skip
    if loss.ndim:
        raise ConfigError(f"loss.reduction={node.get('reduction')}: must give one number; allowed: mean, sum")
    return loss_fns


def build_optimizer(node: dict[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the model's trained parameters, in its fused form where there is one."""
    factory = config.factory("optimizer", node)
    with problems_of("optimizer", node):
        return factory(optim.trainable(model), **optim.fused_by_default(factory.func, factory.keywords))


def build_schedule(
    node: dict[str, Any], optimizer: torch.optim.Optimizer, settings: Trainer, count: int
) -> schedules.Schedule:
    """The scheduler with its totals from the real number of steps over `count` training images."""
    scheduling, node = config.split_node("scheduler", node)
    scheduler_class = config.locate("scheduler", node)
    plateau = schedules.is_plateau(scheduler_class)
    if plateau and scheduling.interval == "step":
        raise ConfigError("scheduler.interval=step: a plateau is watched once an epoch; allowed: epoch")
    steps = schedules.total_steps(settings.epochs, count, settings.batch_size, settings.batch_size_schedule,
                                  settings.drop_last)  # fmt: skip
    total = steps if scheduling.interval == "step" else settings.epochs
    filled: dict[str, Any] = schedules.totals(config.parameters(scheduler_class), node, total)
    if plateau and node.get("mode") is None:
        filled["mode"] = mode_of(scheduling.monitor)
    try:
        scheduler = config.build("scheduler", {**node, **filled}, optimizer=optimizer)
        if not plateau:
            schedules.rehearse(scheduler, total)
    except (ZeroDivisionError, ValueError) as error:  # OneCycleLR divides by pct_start × total − 1 when it is built
        why = f"{scheduler_class.__name__} over {total} {scheduling.interval}s: {first_line(error)}"
        raise ConfigError(f"scheduler: {why}; see scheduler.* and trainer.epochs") from error
    return schedules.Schedule(scheduler, scheduling.interval, scheduling.monitor if plateau else None)


@contextlib.contextmanager
def problems_of(key: str, node: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Errors that a config value has caused, as ConfigErrors that name the key (see value_error)."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise value_error(key, error, node) from error
