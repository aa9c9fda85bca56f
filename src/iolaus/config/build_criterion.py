"""The criterion that `loss` names, with the weights of classes that a configuration asks for, and tried."""

import warnings

import torch
from torch import Tensor, nn

from iolaus.config.check import RunConfig
from iolaus.errors import ConfigError, first_line, problems_of
from iolaus.methods.class_weights import weigh_classes
from iolaus.methods.losses import LossFn


def build_criterion(config: RunConfig, num_classes: int, targets: Tensor) -> nn.Module:
    """Build the loss as the library has it. targets: of the training images. Raises ConfigError."""
    weights = config.loss.class_weights
    criterion: nn.Module
    if weights is None:
        criterion = config.loss_node.build()
        return criterion
    if "weight" not in config.loss_node.signature:
        takes = f"{config.loss_node.path} takes no weights of classes; torch.nn.CrossEntropyLoss does"
        raise ConfigError(f"loss.class_weights={weights}: {takes}")
    with problems_of("loss"):
        criterion = config.loss_node.build(weight=weigh_classes(weights, targets, num_classes))
    return criterion


def try_loss(config: RunConfig, criterion: nn.Module, loss_fn: LossFn, num_classes: int, device: torch.device) -> None:
    """Try a loss on made-up rows, more than classes, so that no shape fits by accident. Raises ConfigError."""
    one_hot, reduction = config.loss.one_hot, config.loss_node.arguments.get("reduction")
    rows, name = num_classes + 1, type(criterion).__name__
    logits = torch.zeros(rows, num_classes, device=device, requires_grad=True)
    indices = torch.zeros(rows, dtype=torch.int64, device=device)
    try:
        with warnings.catch_warnings(action="ignore"):  # of the broadcasting that is about to fail
            loss: object = loss_fn(logits, indices)
    except (RuntimeError, ValueError, TypeError) as error:
        targets = "one-hot targets" if one_hot else "class indices as targets"
        raise ConfigError(
            f"loss: {name} does not take {targets} ({first_line(error)}); try loss.one_hot={str(not one_hot).lower()}"
        ) from error
    if not isinstance(loss, Tensor):
        raise ConfigError(f"loss: {name} gives a {type(loss).__name__}, not one number in a tensor of shape ()")
    if loss.ndim and reduction is not None:
        raise ConfigError(f"loss.reduction={reduction}: must give one number; allowed: mean, sum")
    if loss.ndim:
        raise ConfigError(f"loss: {name} gives shape {tuple(loss.shape)}, not one number in a tensor of shape ()")
    if not loss.requires_grad:
        raise ConfigError(f"loss: {name} gives a number without a gradient with respect to the logits")
