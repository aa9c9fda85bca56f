"""Configuration -> objects: everything that a run is made of, built and tried before anything is written."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from iolaus import config, hardware, optim, schedules
from iolaus.data.open import Datasets, input_shape, open_data
from iolaus.data.sources import read
from iolaus.errors import ConfigError, first_line, value_error
from iolaus.loop import Learner
from iolaus.losses import LossFn, loss_functions
from iolaus.seeds import WEIGHTS, seed_device, seed_of
from iolaus.settings import Launch, Trainer
from iolaus.stopping import mode_of


@dataclass
class Parts:
    """The objects of one run. parameters: how many numbers the model learns or holds fixed."""

    launch: Launch
    settings: Trainer
    data: Datasets
    learner: Learner
    should_stop: Callable[[list[dict[str, float]]], bool]
    parameters: int


def build_parts(plain: dict[str, Any]) -> Parts:
    """Build what a checked configuration (plain containers) names. Raises ConfigError, one line a problem."""
    launch = Launch(**{k: v for k, v in plain.items() if not isinstance(v, dict)})
    settings: Trainer = config.build("trainer", plain["trainer"])
    with problems_of("trainer"):
        device = hardware.pick_device(settings.device)
        precision = hardware.pick_precision(settings.precision, device)
    data = build_data(plain, launch.seed, device)
    model = build_model(plain["model"], data, launch.seed, device)
    loss_fn, evaluation_loss_fn = build_losses(plain["loss"], len(data.classes), device)
    optimizer = build_optimizer(plain["optimizer"], model)
    schedule = build_schedule(plain["scheduler"], optimizer, settings, len(data.train))
    learner = Learner(model, loss_fn, evaluation_loss_fn, optimizer, schedule, device, precision,
                      hardware.DTYPES[precision], settings.grad_clip_norm)  # fmt: skip
    stopping = config.build("early_stopping", plain["early_stopping"]) if plain.get("early_stopping") else None
    should_stop = stopping.should_stop if stopping else lambda history: False
    return Parts(launch, settings, data, learner, should_stop, sum(p.numel() for p in model.parameters()))


def build_data(plain: dict[str, Any], seed: int, device: torch.device) -> Datasets:
    """The dataset, brought to what the model takes and placed where it is trained from."""
    dataset, node = config.split_node("dataset", plain["dataset"])
    model, _ = config.split_node("model", plain["model"])
    augmentation = None
    if plain.get("augmentation"):
        augmentation = config.build("augmentation", plain["augmentation"], mirror=dataset.mirror)
    reader = config.factory("dataset", node)
    with problems_of("dataset"):
        source = read(reader, inspect.signature(reader.func))
        channels, image_size = input_shape(source, dataset, model)
        return open_data(source, dataset, channels=channels, image_size=image_size, augmentation=augmentation,
                         seed=seed, device=device)  # fmt: skip


def build_model(node: dict[str, Any], data: Datasets, seed: int, device: torch.device) -> nn.Module:
    """The model on the device, its initial weights drawn from the seed; two blank images have gone through it."""
    _, node = config.split_node("model", node)
    seed_device(seed_of(seed, 0, WEIGHTS), device)
    num_classes, channels, size = len(data.classes), data.channels, data.image_size
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
    steps = schedules.total_steps(settings.epochs, count, settings.batch_size, settings.batch_size_schedule)
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
