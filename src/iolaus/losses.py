"""A loss as the loop calls it: float32 logits, class indices in, a scalar out."""

import copy
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

LossFn = Callable[[Tensor, Tensor], Tensor]


def loss_functions(criterion: Any, one_hot: bool, num_classes: int) -> tuple[LossFn, LossFn]:
    """(training, evaluation) loss of (logits: (batch, classes), targets: (batch,) int64).

    Logits are taken to float32, since under autocast they are of 16 bits. one_hot: the criterion wants targets as
    (batch, classes) floats. Evaluation is without label smoothing: it is a training trick, and losses of runs with
    and without it must compare.
    """

    def of(criterion: Any) -> LossFn:
        def loss_fn(logits: Tensor, targets: Tensor) -> Tensor:
            logits = logits.float()
            return criterion(logits, F.one_hot(targets, num_classes).to(logits.dtype) if one_hot else targets)

        return loss_fn

    if not getattr(criterion, "label_smoothing", 0.0):
        return of(criterion), of(criterion)
    plain = copy.copy(criterion)
    plain.label_smoothing = 0.0
    return of(criterion), of(plain)
