"""A loss as the loop calls it: float32 logits, class indices in, a scalar out."""

import copy
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

LossFn = Callable[[Tensor, Any], Tensor]


def loss_functions(criterion: Any, one_hot: bool, num_classes: int) -> tuple[LossFn, LossFn]:
    """(training, evaluation) loss of (logits: (batch, classes), targets: (batch,) int64, or augment.mix.Mixed).

    Of a mixed batch λ of its targets and 1 − λ of its partners' make the loss: of one-hot targets before it is
    taken, else of the two losses, which is the same for cross-entropy, with label smoothing too. Logits are taken to
    float32, since under autocast they are of 16 bits. one_hot: the criterion wants targets as (batch, classes) floats.
    Evaluation is without label smoothing: it is a training trick, and losses of runs with and without it must compare.
    """

    def of(criterion: Any) -> LossFn:
        def hot(targets: Tensor, logits: Tensor) -> Tensor:
            return F.one_hot(targets, num_classes).to(logits.dtype) if one_hot else targets

        def loss_fn(logits: Tensor, targets: Any) -> Tensor:
            logits = logits.float()
            if not isinstance(targets, tuple):
                return criterion(logits, hot(targets, logits))
            targets, partners, share = targets
            if one_hot:
                return criterion(logits, share * hot(targets, logits) + (1 - share) * hot(partners, logits))
            return share * criterion(logits, targets) + (1 - share) * criterion(logits, partners)

        return loss_fn

    if not getattr(criterion, "label_smoothing", 0.0):
        return of(criterion), of(criterion)
    plain = copy.copy(criterion)
    plain.label_smoothing = 0.0
    return of(criterion), of(plain)
