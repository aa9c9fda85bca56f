"""Weights of classes in the training loss, for data in which some are rare (`loss.class_weights`)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def weigh_classes(given: str | Sequence[float], targets: Tensor, num_classes: int) -> Tensor:
    """The weight of each class, (classes,) float32, as the argument `weight` of torch's losses takes it.

    given: one number a class; or balanced, n / (K · nₖ) for a class with nₖ of the n training images, where K counts
    the classes that have any (King & Zeng 2001, as scikit-learn's `class_weight="balanced"`): all classes weigh the
    same in all. targets: (n,) int64, of the training images. Raises ValueError for a list of another length.
    """
    if isinstance(given, str):
        counts = torch.bincount(targets.cpu(), minlength=num_classes)
        weights = len(targets) / (counts.clamp(min=1) * int((counts > 0).sum()))
        return torch.where(counts > 0, weights, 0.0).float()
    if len(given) != num_classes:
        raise ValueError(f"class_weights={list(given)}: must be one weight a class, {num_classes} of them")
    return torch.tensor(given, dtype=torch.float32)
