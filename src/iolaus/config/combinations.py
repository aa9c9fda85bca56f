"""Parts and values that do not go together: what is refused, and what a run's log says of it."""

import copy
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iolaus.errors import ConfigError, first_line
from iolaus.methods.schedules import TOTALS, is_plateau, smallest_part, steps_at

if TYPE_CHECKING:
    from torch import nn

    from iolaus.config.check import RunConfig
    from iolaus.config.node import Node
    from iolaus.data.shape import ImageShape
    from iolaus.settings import Trainer

log = logging.getLogger(__name__)
FEW_STEPS = 5  # of an epoch


def keys_without_effect(config: "RunConfig", overrides: Iterable[str]) -> dict[str, str]:
    """The keys that overrides give although nothing reads them in this configuration: {key: the whole line}."""
    given = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    return {key: f"{key}={given[key]}: has no effect; {why}" for key, why in dead_keys(config).items() if key in given}


def refuse_unread(of_jobs: Sequence[Mapping[str, str]]) -> None:
    """Raise ConfigError for keys that no job of a sweep reads, and tell of those that only some of them read.

    of_jobs: what keys_without_effect says of each.
    """
    counts = Counter(key for unread in of_jobs for key in unread)
    lines = {key: line for unread in reversed(of_jobs) for key, line in unread.items()}
    if by_none := [lines[key] for key, count in counts.items() if count == len(of_jobs)]:
        raise ConfigError(*by_none)
    for key, count in counts.items():
        log.warning("%s (so it is in %d of %d runs)", lines[key], count, len(of_jobs))


def dead_keys(config: "RunConfig") -> dict[str, str]:
    """The keys whose values change nothing in this configuration, and why."""
    groups: dict[str, Any] = {name: value for name, value in config.plain.items() if isinstance(value, Mapping)}
    optimizer, scheduler, augmentation = groups["optimizer"], groups["scheduler"], groups.get("augmentation", {})
    trainer, dataset, dead = config.trainer, config.dataset, dict[str, str]()

    def rule(applies: bool, why: str, *keys: str) -> None:
        dead.update(dict.fromkeys(keys, why) if applies else {})

    cycles = scheduler.get("cycle_momentum")
    rule(cycles is True, "scheduler.cycle_momentum=true moves it", "optimizer.momentum", "optimizer.betas")
    of_cycle = ("scheduler.base_momentum", "scheduler.max_momentum")
    rule(cycles is False, "it is for scheduler.cycle_momentum=true", *of_cycle)
    highest = scheduler.get("max_lr", optimizer.get("lr"))
    replaced = highest != optimizer.get("lr") and "adamw_lr" not in optimizer  # Muon's two rates keep their ratio
    rule(replaced, f"scheduler.max_lr={highest} takes its place", "optimizer.lr")
    rule(not is_plateau(config.scheduler_node.target), "only a plateau watches a metric", "scheduler.monitor")
    if trainer.batch_size_schedule is None:
        scales = trainer.scale_lr_with_batch != "none"
        rule(scales, "there is no trainer.batch_size_schedule", "trainer.scale_lr_with_batch")
    else:
        replaced = 0 in trainer.batch_size_schedule and trainer.scale_lr_with_batch == "none"
        rule(replaced, "trainer.batch_size_schedule has a size from epoch 0 on", "trainer.batch_size")
    rule(dataset.validation == "test", "validation is the whole test set", "dataset.validation_seed")
    of_flip = ("augmentation.flip", "augmentation.flip_mode")
    flips = augmentation.get("flip", 0) > 0
    rule(not flips, "augmentation.flip is 0", "augmentation.flip_mode")
    rule(flips and not dataset.mirror, "a mirrored image is of another class here (dataset.mirror=false)", *of_flip)
    rule(augmentation.get("crop_padding") == 0, "augmentation.crop_padding is 0", "augmentation.padding_mode")
    of_policy = ("augmentation.num_ops", "augmentation.magnitude")
    rule(augmentation.get("policy") != "rand_augment", "it is for augmentation.policy=rand_augment", *of_policy)
    mixes = augmentation.get("mixup_alpha") or augmentation.get("cutmix_alpha")
    rule(not mixes, "neither mixup_alpha nor cutmix_alpha is on", "augmentation.mix_probability")
    rule(not augmentation.get("scale"), "it is for augmentation.scale", "augmentation.ratio")
    key = "optimizer_groups.no_decay_on_norm_and_bias"
    decays = any(optimizer.get(name) for name in ("weight_decay", "adamw_weight_decay", "sgd_weight_decay"))
    decays = decays or bool(config.optimizer_groups.classifier_weight_decay)
    rule(config.optimizer_groups.no_decay_on_norm_and_bias and not decays, "there is no weight decay", key)
    for rest in ("adamw", "sgd") if "rest" in optimizer else ():
        of_other = [f"optimizer.{name}" for name in optimizer if name.startswith(f"{rest}_")]
        rule(optimizer["rest"] != rest, f"it is for optimizer.rest={rest}", *of_other)
    frozen = (config.optimizer_groups.lr_factors or [1.0])[0] == 0
    rule(frozen, "optimizer_groups.lr_factors freezes the first block", "optimizer_groups.first_block_epochs")
    return dead


def advise_on_stopping(scheduler: "Node", what: str, patience: int | None = None) -> list[str]:
    """A line of advice where `what` ends runs early and the schedule has the run's length, or drops late; else none.

    patience: epochs, where the schedule counts epochs, too.
    """
    step_size = scheduler.arguments.get("step_size")
    if isinstance(step_size, int) and patience is not None and patience < step_size:
        return [
            f"{what}.patience={patience} is below scheduler.step_size={step_size}: a run that finds no better epoch "
            "for so long ends before its learning rate first falls"
        ]
    filled = [name for name in TOTALS if name in scheduler.signature and scheduler.arguments.get(name, 0) is None]
    if not filled:
        return []
    name = scheduler.path.rpartition(".")[2]
    return [
        f"{what} and {name}: a run that ends early never reaches the low learning rates of a schedule over all epochs; "
        "scheduler=constant, step and plateau have no fixed length"
    ]


def advise_on_balance(config: "RunConfig") -> list[str]:
    """A line of advice where rare classes count twice; else none."""
    both = config.loss.class_weights == "balanced" and config.dataset.sampler == "balanced"
    return ["loss.class_weights and dataset.sampler=balanced: rare classes count twice; one is enough"] if both else []


def advise_on_batches(trainer: "Trainer", count: int) -> list[str]:
    """Lines of advice on the batches of a run over `count` images.

    Where an epoch has few steps, and where the run ends before its batch size changes for the first time.
    """
    advice = []
    steps = steps_at(0, count, trainer.batch_size, trainer.batch_size_schedule, trainer.drop_last)[1]
    if steps < FEW_STEPS:
        few = f"{steps} step{'s' if steps > 1 else ''}"
        advice.append(f"an epoch of {count} images is {few}; a smaller trainer.batch_size takes more")
    first = min(trainer.batch_size_schedule or {0: 0})
    if first >= trainer.epochs:
        advice.append(
            f"trainer.batch_size_schedule changes the batch size from epoch {first} on (the first is 0), after the run "
            f"has ended (trainer.epochs={trainer.epochs}): it stays {trainer.batch_size}"
        )
    return advice


def check_single_images(config: "RunConfig", model: "nn.Module", shape: "ImageShape", count: int, ranks: int) -> None:
    """Try the model in training on one image if a run over `count` images has a batch of one. Raises ConfigError.

    ranks: that share each batch.
    BatchNorm has no variance of a single value per channel.
    """
    if smallest_part(config.trainer, count) // ranks > 1:
        return
    blank = next(model.parameters()).new_zeros(1, shape.channels, shape.size, shape.size)
    try:
        copy.deepcopy(model).train()(blank)
    except ValueError as error:
        sizes = f"trainer.batch_size={config.trainer.batch_size}, trainer.micro_batch_size, trainer.drop_last"
        raise ConfigError(
            f"{sizes}: {type(model).__name__} would train on a single image of {count} ({first_line(error)}); "
            "give sizes that leave no single image, or trainer.drop_last=true"
        ) from error
