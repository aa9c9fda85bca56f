"""From a checked configuration to objects: all parts of a run, built and tried before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from iolaus.config.build_criterion import build_criterion, try_loss
from iolaus.config.build_data import Inputs, build_data, data_fingerprint, read_inputs
from iolaus.config.build_device import prepare_device
from iolaus.config.build_model import build_model, load_starting_weights
from iolaus.config.check import RunConfig
from iolaus.config.combinations import advise_on_balance, advise_on_batches, advise_on_stopping, check_single_images
from iolaus.config.own_code import hash_own_code
from iolaus.errors import ConfigError, first_line, problems_of
from iolaus.learner import Learner, Metrics
from iolaus.machine import hardware
from iolaus.machine.compile import compile_in_place
from iolaus.machine.cuda_graphs import CudaGraphs, is_steady
from iolaus.machine.ranks import ALONE, Alone, Ranks, share_batchnorm
from iolaus.methods import param_groups, schedules
from iolaus.methods.ema import ModelEma
from iolaus.methods.fused import fused_by_default
from iolaus.methods.losses import LossFn, MeanOverImages, loss_functions
from iolaus.methods.stopping import mode_of

if TYPE_CHECKING:
    from iolaus.data.open import Datasets

SMALL_PARAMETERS, SMALL_IMAGES = 2_000_000, 32  # of the largest model of its table "One thread or one a core", pixels


@dataclass
class Parts:
    """The objects of one run.

    parameters: the count of numbers in the model, trained or frozen. channels_last: the memory order of images and
    weights. compiled: whether torch.compile was asked for and worked. batchnorm: see share_batchnorm. fingerprint: of
    the data (build_data.data_fingerprint). own_code: see hash_own_code. notes: what the run's log says about the parts.
    """

    config: RunConfig
    data: "Datasets"
    learner: Learner
    should_stop: Callable[[list[Metrics]], bool]
    parameters: int
    channels_last: bool
    compiled: bool
    batchnorm: str | None
    fingerprint: str
    own_code: dict[str, str]
    notes: list[str]

    @property
    def is_small(self) -> bool:
        """Whether one thread computes as fast as several on a busy CPU: what benchmarks/README.md has measured."""
        sizes = self.parameters <= SMALL_PARAMETERS and self.data.shape.size <= SMALL_IMAGES
        return sizes and self.learner.device.type == "cpu"


def build_parts(config: RunConfig, group: Alone = ALONE) -> Parts:
    """Build what a checked configuration names. Raises ConfigError, one line a problem.

    group: the ranks that the run is for, if it has been split among several; the parts join them afterwards.
    """
    settings = config.trainer
    device, precision = prepare_device(settings, group)
    inputs = read_inputs(config)
    if settings.tta.startswith("flip") and not inputs.settings.mirror:
        raise ConfigError(
            f"trainer.tta={settings.tta}: a mirrored image is of another class here (dataset.mirror=false); "
            "allowed: none, resize_center_crop"
        )
    model = build_model(config, inputs, device)
    notes = [*inputs.notes]
    notes += [load_starting_weights(config, model, inputs)] if config.model.weights else []
    model, batchnorm = share_batchnorm(model, settings.sync_batchnorm and not settings.micro_batch_size, group, device)
    channels_last = wants_channels_last(settings.channels_last, model, device, precision)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    if channels_last:
        model = model.to(memory_format=memory_format)
    data = build_data(config, inputs, device, memory_format)
    if not config.model.weights and callable(initialise := getattr(model, "initialise", None)):
        initialise(data.sample().to(device))  # a model that takes its first weights from training images
    losses = build_losses(config, len(inputs.source.classes), device, data.train.targets, group.world)
    optimizer = build_optimizer(config, model)
    schedule = build_schedule(config, optimizer, len(data.train))
    check_single_images(config, model, inputs.shape, len(data.train), group.world)
    if config.early_stopping_node:
        by_epoch = config.scheduler.interval == "epoch"
        patience = config.early_stopping_node.arguments.get("patience") if by_epoch else None
        notes += advise_on_stopping(config.scheduler_node, "early_stopping", patience)
    notes += advise_on_balance(config) + advise_on_batches(settings, len(data.train))
    if len(optimizer.param_groups) > 1:
        notes += param_groups.describe(optimizer.param_groups)
    if frozen := sum(p.numel() for p in model.parameters() if not p.requires_grad):
        notes.append(f"frozen: {frozen:,} parameters")
    learner = Learner(
        model,
        *losses,
        optimizer,
        schedule,
        settings,
        device,
        precision,
        hardware.DTYPES[precision],
        config.launch.seed,
        frozen=param_groups.frozen_modules(model),
        ema=ModelEma(model, settings.ema_decay) if settings.ema_decay else None,
    )
    notes += launch_graphs(learner, losses[0].criterion, group)
    compiled = bool(settings.compile) and compile_model(learner, inputs, len(data.train), memory_format)
    stopping = config.early_stopping_node.build() if config.early_stopping_node else None
    should_stop = stopping.should_stop if stopping else lambda history: False
    parameters = sum(p.numel() for p in model.parameters())
    built = config, data, learner, should_stop, parameters, channels_last, compiled, batchnorm
    return Parts(*built, data_fingerprint(inputs.source), hash_own_code(config.plain), notes)


def wants_channels_last(chosen: str | bool, model: nn.Module, device: torch.device, precision: str) -> bool:
    """Whether images and weights are to lie in channels-last order; `auto` where convolutions are faster in it.

    That is on CPUs, and on GPUs with 16-bit numbers (PyTorch's channels-last tutorial). A model without 2-D
    convolutions gains nothing: the order only costs a copy before its first linear layer.
    """
    if chosen != "auto":
        return bool(chosen)
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return convolves and (device.type == "cpu" or (device.type == "cuda" and precision != "fp32"))


def build_losses(
    config: RunConfig, num_classes: int, device: torch.device, train_targets: Tensor, ranks: int
) -> tuple[LossFn, LossFn | MeanOverImages]:
    """(training, evaluation) loss, tried on made-up rows: more than classes, so that no shape fits by accident.

    train_targets: for the weights of classes. ranks: that share each batch.
    """
    reduction = config.loss_node.arguments.get("reduction")
    criterion = build_criterion(config, num_classes, train_targets).to(device)
    loss_fns = loss_functions(criterion, config.loss.one_hot, num_classes)
    try_loss(config, criterion, loss_fns[0], num_classes, device)
    if ranks > 1 and reduction == "sum":
        raise ConfigError(
            "trainer.devices with loss.reduction=sum: the parts of a batch are averaged; allowed: loss.reduction=mean"
        )
    return loss_fns


def build_optimizer(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the groups of the model's trained parameters, in its fused form where there is one."""
    node, settings = config.optimizer_node, config.optimizer_groups
    make = node.partial()
    with node.errors():
        defaults = make([nn.Parameter(torch.zeros(1))]).defaults
    rest = defaults.get("rest")  # Muon's: what updates the parameters that are not matrices
    with problems_of("optimizer_groups"):
        groups = param_groups.parameter_groups(
            model,
            lr=defaults["lr"],
            weight_decay=defaults.get("weight_decay"),
            rest={"kind": rest, **{k: defaults[f"{rest}_{k}"] for k in ("lr", "weight_decay")}} if rest else None,
            no_decay_on_norm_and_bias=settings.no_decay_on_norm_and_bias,
            lr_factors=settings.lr_factors,
            classifier_lr_factor=settings.classifier_lr_factor,
            classifier_weight_decay=settings.classifier_weight_decay,
            first_block_epochs=settings.first_block_epochs,
        )
    fused = fused_by_default(make.func, make.keywords, (p for group in groups for p in group["params"]))
    with node.errors():
        optimizer: torch.optim.Optimizer = make(groups, **fused)
    return optimizer


def build_schedule(config: RunConfig, optimizer: torch.optim.Optimizer, count: int) -> schedules.Schedule:
    """The scheduler with its totals from the real number of steps over `count` training images."""
    settings, scheduling, node = config.trainer, config.scheduler, config.scheduler_node
    plateau = schedules.is_plateau(node.target)
    if plateau and scheduling.interval == "step":
        raise ConfigError("scheduler.interval=step: a plateau is watched once an epoch; allowed: epoch")
    batches = (count, settings.batch_size, settings.batch_size_schedule, settings.drop_last)
    steps, warmup = (
        schedules.total_steps(settings.epochs, *batches),
        schedules.warmup_steps(scheduling.warmup_epochs, *batches),
    )
    if scheduling.warmup_epochs and warmup >= steps:
        given = f"scheduler.warmup_epochs={scheduling.warmup_epochs:g}"
        raise ConfigError(f"{given}: must be less than trainer.epochs={settings.epochs}")
    total = steps if scheduling.interval == "step" else settings.epochs
    filled: dict[str, Any] = schedules.fill_totals(node.signature, node.arguments, total)
    if plateau and node.arguments.get("mode") is None:
        filled["mode"] = mode_of(scheduling.monitor)
    try:
        scheduler = node.replace(**filled).build(optimizer=schedules.stand_in(optimizer))
        if not plateau:
            schedules.dry_run(scheduler, total)
    except (ConfigError, ZeroDivisionError, ValueError) as error:
        # OneCycleLR divides by pct_start × total − 1 when it is built
        if isinstance(error, ConfigError) and not isinstance(error.__cause__, ZeroDivisionError):
            raise
        name, unit = getattr(node.target, "__name__", node.path), scheduling.interval
        why = f"{name} over {total} {unit}s: {first_line(error.__cause__ or error)}"
        raise ConfigError(f"scheduler: {why}; see scheduler.* and trainer.epochs") from error
    monitor = scheduling.monitor if plateau else None
    ends = [
        max(1, schedules.warmup_steps(group["epochs"], *batches)) if "epochs" in group else None
        for group in optimizer.param_groups
    ]
    return schedules.Schedule(scheduler, optimizer, scheduling.interval, monitor, warmup, ends=ends)


def launch_graphs(learner: Learner, criterion: nn.Module, group: Alone) -> list[str]:
    """Let a learner launch its passes as CUDA graphs, where it is to. Returns what the log says if that can't be."""
    chosen = learner.settings.cuda_graphs
    possible = learner.device.type == "cuda" and not isinstance(group, Ranks)
    if chosen == "auto":
        chosen = possible and not learner.settings.compile and is_steady(learner.model, criterion)
    if chosen and possible:
        learner.launch = CudaGraphs(learner.parameters)
    where = "several ranks" if isinstance(group, Ranks) else learner.device
    return [f"trainer.cuda_graphs: without effect on {where}"] if chosen and not possible else []


def compile_model(learner: Learner, inputs: Inputs, count: int, memory_format: torch.memory_format) -> bool:
    """Compile the model for batches as the run has them. Returns whether that worked."""
    settings, shape = learner.settings, inputs.shape
    size = min(settings.micro_batch_size or settings.batch_size, settings.batch_size, count)
    blank = torch.zeros(size, shape.channels, shape.size, shape.size)
    images = blank.to(learner.device, memory_format=memory_format)
    mode = None if settings.compile is True else str(settings.compile)
    return compile_in_place(learner.model, images, learner.autocast(), mode)
