"""Configuration -> objects: everything that a run is made of, built and tried before anything is written."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from iolaus import config, groups, hardware, schedules
from iolaus.compiling import compile_in_place
from iolaus.data.open import Datasets
from iolaus.data.shape import ImageShape
from iolaus.ema import Average
from iolaus.errors import ConfigError, first_line, problems_of
from iolaus.inputs import build_data, build_source
from iolaus.learner import Learner
from iolaus.losses import LossFn, loss_functions
from iolaus.optim import fused_by_default
from iolaus.seeds import WEIGHTS, seed_device, seed_of
from iolaus.settings import Launch, OptimizerGroups, Trainer
from iolaus.start import defer_compiler, load_compiler
from iolaus.stopping import mode_of


@dataclass
class Parts:
    """The objects of one run.

    parameters: how many numbers the model learns or holds fixed. channels_last: whether images and weights lie so.
    compiled: whether torch.compile was asked for and worked. notes: what the run's log says about them.
    """

    launch: Launch
    settings: Trainer
    data: Datasets
    learner: Learner
    should_stop: Callable[[list[dict[str, float]]], bool]
    parameters: int
    channels_last: bool = False
    compiled: bool = False
    notes: list[str] = field(default_factory=list)


def build_parts(plain: dict[str, Any]) -> Parts:
    """Build what a checked configuration (plain containers) names. Raises ConfigError, one line a problem."""
    launch = Launch(**{k: v for k, v in plain.items() if not isinstance(v, dict)})
    settings: Trainer = config.build("trainer", plain["trainer"])
    with problems_of("trainer"):
        device = hardware.pick_device(settings.device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # for what asks for no device: pinned memory, libraries' workspaces
        precision = hardware.pick_precision(settings.precision, device)
    hardware.keep_freed_memory(settings.keep_freed_memory)
    hardware.deterministic(settings.deterministic)
    (load_compiler if settings.compile else defer_compiler)()
    source, dataset, shape = build_source(plain)
    if settings.tta.startswith("flip") and not dataset.mirror:
        raise ConfigError(f"trainer.tta={settings.tta}: a mirrored image is of another class here "
                          "(dataset.mirror=false); allowed: none, resize_center_crop")  # fmt: skip
    num_classes = len(source.classes)
    model, notes = build_model(plain["model"], source.classes, shape, launch.seed, device)
    channels_last = wants_channels_last(settings.channels_last, model, device, precision)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    if channels_last:
        model = model.to(memory_format=memory_format)
    data = build_data(plain, source, dataset, shape, settings, launch.seed, device, memory_format)
    if not plain["model"].get("weights"):
        initialise(model, data, device)
    loss_fn, evaluation_loss_fn = build_losses(plain["loss"], num_classes, device)
    if settings.micro_batch_size and plain["loss"].get("reduction") == "sum":
        raise ConfigError("trainer.micro_batch_size with loss.reduction=sum: the parts of a batch are averaged; "
                          "allowed: loss.reduction=mean")  # fmt: skip
    optimizer = build_optimizer(plain["optimizer"], plain["optimizer_groups"], model)
    schedule = build_schedule(plain["scheduler"], optimizer, settings, len(data.train))
    if len(optimizer.param_groups) > 1:
        notes += groups.describe(optimizer.param_groups)
    if frozen := sum(p.numel() for p in model.parameters() if not p.requires_grad):
        notes.append(f"frozen: {frozen:,} parameters")
    learner = Learner(
        model, loss_fn, evaluation_loss_fn, optimizer, schedule, device, precision, hardware.DTYPES[precision],
        settings.grad_clip_norm, settings.micro_batch_size, settings.sam_rho, settings.sam_adaptive,
        frozen=groups.frozen_modules(model), average=Average(model, settings.ema_decay) if settings.ema_decay else None,
    )  # fmt: skip
    compiled = False
    if settings.compile:
        count = min(settings.micro_batch_size or settings.batch_size, settings.batch_size, len(data.train))
        blank = torch.zeros(count, shape.channels, shape.size, shape.size)
        compiled = compile_in_place(model, blank.to(device, memory_format=memory_format), learner.autocast())
    stopping = config.build("early_stopping", plain["early_stopping"]) if plain.get("early_stopping") else None
    should_stop = stopping.should_stop if stopping else lambda history: False
    parameters = sum(p.numel() for p in model.parameters())
    return Parts(launch, settings, data, learner, should_stop, parameters, channels_last, compiled, notes)


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
    node: dict[str, Any], classes: list[str], images: ImageShape, seed: int, device: torch.device
) -> tuple[nn.Module, list[str]]:
    """The model on the device, its initial weights drawn from the seed or read from `model.weights`.

    Two blank images have gone through it. Also returns what was read, as lines for the log.
    """
    own, node = config.split_node("model", node)
    num_classes = len(classes)
    if own.weights and node.get("pretrained"):
        raise ConfigError(f"model.weights={own.weights}: a file to start from, and model.pretrained=true; drop one")
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
    if own.weights is None:
        return model, []
    from iolaus.models.weights import load_weights

    with problems_of("model"):
        return model, [load_weights(model, own.weights, classes=classes)]


def initialise(model: Any, data: Datasets, device: torch.device) -> None:
    """Let a model that has a method `initialise(images)` take its first weights from the training images."""
    if callable(getattr(model, "initialise", None)):
        model.initialise(data.sample().to(device))


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


def build_optimizer(node: dict[str, Any], grouping: dict[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the groups of the model's trained parameters, in its fused form where there is one."""
    factory = config.factory("optimizer", node)
    settings: OptimizerGroups = config.build("optimizer_groups", grouping)
    fused = fused_by_default(factory.func, factory.keywords)
    with problems_of("optimizer", node):
        defaults = factory([nn.Parameter(torch.zeros(1))], **fused).defaults
    muon = {name: defaults[name] for name in ("adamw_lr", "adamw_weight_decay")} if "adamw_lr" in defaults else None
    with problems_of("optimizer_groups"):
        made = groups.parameter_groups(
            model, lr=defaults["lr"], weight_decay=defaults.get("weight_decay"), muon=muon,
            no_decay_on_norm_and_bias=settings.no_decay_on_norm_and_bias, lr_factors=settings.lr_factors,
            classifier_lr_factor=settings.classifier_lr_factor,
        )  # fmt: skip
    with problems_of("optimizer", node):
        return factory(made, **fused)


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
    warmup = schedules.warmup_steps(scheduling.warmup_epochs, count, settings.batch_size, settings.batch_size_schedule,
                                    settings.drop_last)  # fmt: skip
    if scheduling.warmup_epochs and warmup >= steps:
        raise ConfigError(f"scheduler.warmup_epochs={scheduling.warmup_epochs:g}: must be less than trainer.epochs="
                          f"{settings.epochs}")  # fmt: skip
    total = steps if scheduling.interval == "step" else settings.epochs
    filled: dict[str, Any] = schedules.totals(config.parameters(scheduler_class), node, total)
    if plateau and node.get("mode") is None:
        filled["mode"] = mode_of(scheduling.monitor)
    try:
        scheduler = config.build("scheduler", {**node, **filled}, optimizer=schedules.reference(optimizer))
        if not plateau:
            schedules.rehearse(scheduler, total)
    except (ZeroDivisionError, ValueError) as error:  # OneCycleLR divides by pct_start × total − 1 when it is built
        why = f"{scheduler_class.__name__} over {total} {scheduling.interval}s: {first_line(error)}"
        raise ConfigError(f"scheduler: {why}; see scheduler.* and trainer.epochs") from error
    return schedules.Schedule(
        scheduler, optimizer, scheduling.interval, scheduling.monitor if plateau else None, warmup
    )
