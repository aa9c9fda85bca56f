"""The criterion that `loss` names, with the weights of classes that a configuration asks for."""

from torch import Tensor, nn

from iolaus.config.check import RunConfig
from iolaus.errors import ConfigError, problems_of
from iolaus.methods.class_weights import weigh_classes


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
