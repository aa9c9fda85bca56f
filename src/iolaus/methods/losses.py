"""A loss as the loop calls it: float32 logits, class indices in, a scalar out."""

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iolaus.augment.mix import Targets, weigh

CLASS_WEIGHTED = (nn.CrossEntropyLoss, nn.NLLLoss)  # their mean is over the weights of the images' classes


@dataclass(frozen=True)
class LossFn:
    """A criterion of torch's or the user's as a function of (logits: (batch, classes), targets), which gives a scalar.

    Logits are cast to float32, since autocast makes them 16 bits. one_hot: the criterion takes (batch, classes) floats,
    otherwise (batch,) class indices. A mixed batch's one-hot targets are averaged before the criterion sees them; with
    class indices the two losses are averaged, which is the same for cross-entropy, also with label smoothing.
    """

    criterion: nn.Module
    one_hot: bool
    num_classes: int

    def __call__(self, logits: Tensor, targets: Targets, batch: Targets | None = None) -> Tensor:
        """The loss of a batch, or of the part of one: the losses of the parts of `batch` add up to its own."""
        logits, batch = logits.float(), targets if batch is None else batch
        if self.one_hot:
            targets, batch = self._to_one_hot(targets), self._to_one_hot(batch)
        return weigh(lambda part, whole: self._of_part(logits, part, whole), targets, batch)

    def _to_one_hot(self, targets: Targets) -> Tensor:
        return weigh(lambda classes: F.one_hot(classes, self.num_classes).float(), targets)

    def _of_part(self, logits: Tensor, part: Tensor, whole: Tensor) -> Tensor:
        loss = cast(Tensor, self.criterion(logits, part))
        if len(part) == len(whole) or is_sum(self.criterion):
            return loss
        weights = class_weights(self.criterion, self.num_classes)
        if weights is None:
            return loss * (len(part) / len(whole))
        weights = weights.to(logits.device)
        return loss * (weights[part].sum() / weights[whole].sum())


@dataclass(frozen=True)
class MeanOverImages:
    """A loss whose criterion gives a sum over the images, as a mean over them."""

    loss_fn: LossFn

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        return self.loss_fn(logits, targets) / len(logits)


def loss_functions(criterion: nn.Module, one_hot: bool, num_classes: int) -> tuple[LossFn, LossFn | MeanOverImages]:
    """Return the training and the evaluation loss.

    The evaluation loss is a mean over the images, whatever batches they come in and however the criterion reduces. It
    has no label smoothing and no class weights: these are training tricks, and runs with and without them must compare.
    """
    plain: Any = criterion
    weighted = class_weights(criterion, num_classes) is not None
    if weighted or float(getattr(criterion, "label_smoothing", 0)):
        plain = copy.deepcopy(criterion)  # a shallow copy would share its buffers, the weights among them
        plain.label_smoothing = 0.0
        if weighted:
            plain.weight, plain.ignore_index = None, -100
    evaluation = LossFn(plain, one_hot, num_classes)
    return LossFn(criterion, one_hot, num_classes), MeanOverImages(evaluation) if is_sum(plain) else evaluation


def is_sum(criterion: object) -> bool:
    """Whether a criterion adds up the losses of the images."""
    return str(getattr(criterion, "reduction", "mean")) == "sum"


def class_weights(criterion: nn.Module, num_classes: int) -> Tensor | None:
    """The weight of each class in a criterion's mean, (classes,); None where all images count alike."""
    if not isinstance(criterion, CLASS_WEIGHTED):
        return None
    weights, ignored = criterion.weight, criterion.ignore_index
    if not 0 <= ignored < num_classes:
        return weights
    weights = torch.ones(num_classes) if weights is None else weights.clone()
    weights[ignored] = 0.0
    return weights
