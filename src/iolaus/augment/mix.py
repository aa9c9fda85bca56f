"""Mixup and cutmix: a batch is mixed with itself, moved on by one place."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """The targets of a mixed batch: `share` of each image (a fraction) belongs to `targets`, the rest to `partners`.

    targets, partners: (batch,) int64. A slice takes a part of the batch. share: in a CUDA graph a
    number on the device.
    """

    targets: Tensor
    partners: Tensor
    share: float | Tensor

    def __getitem__(self, part: slice) -> "Mixed":
        return Mixed(self.targets[part], self.partners[part], self.share)


Targets = Tensor | Mixed


def weigh(value_of: Callable[..., Tensor], targets: Targets, *others: Targets) -> Tensor:
    """`value_of(targets)`; for a mixed batch the mean over both classes of its images, weighted by their shares.

    others: further arguments of value_of, mixed as the targets are.
    """
    if isinstance(targets, Mixed):
        all_mixed = [targets, *(other for other in others if isinstance(other, Mixed))]
        first, second = ([getattr(mixed, which) for mixed in all_mixed] for which in ("targets", "partners"))
        return targets.share * value_of(*first) + (1 - targets.share) * value_of(*second)
    return value_of(targets, *others)


def count_correct(logits: Tensor, targets: Targets) -> Tensor:
    """The number of images recognised; a mixed image counts by the share of the class that was predicted."""
    preds = logits.argmax(dim=1)
    return weigh(lambda classes: (preds == classes).sum(), targets)


@dataclass(frozen=True)
class Mix:
    """Mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019); with both on, each batch draws one of the two.

    mixup_alpha, cutmix_alpha: α of the Beta(α, α) from which a batch's share λ is drawn; 0 is off.
    mix_probability: the probability that a batch is mixed at all.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0

    def __bool__(self) -> bool:
        return max(self.mixup_alpha, self.cutmix_alpha) > 0 and self.mix_probability > 0

    def __call__(self, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Targets]:
        """Mix a batch as `seed` says. images: (batch, channels, height, width) float, targets: (batch,) int64."""
        random = np.random.default_rng(seed)
        if random.random() >= self.mix_probability:
            return images, targets
        both = self.mixup_alpha > 0 and self.cutmix_alpha > 0
        cut = random.random() < 0.5 if both else self.cutmix_alpha > 0
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        share = float(random.beta(alpha, alpha))
        if cut:
            height, width = images.shape[-2:]
            box = clipped_box(share, height, width, int(random.integers(height)), int(random.integers(width)))
            images, share = cutmix(images, *box)
        else:
            images = mixup(images, share)
        return images, Mixed(targets, targets.roll(1), share)


def mixup(images: Tensor, share: float) -> Tensor:
    """`share` of each image plus 1 − share of the one before it in the batch (equation 1 of the paper)."""
    return images.roll(1, 0).lerp_(images, share)


def clipped_box(share: float, height: int, width: int, row: int, column: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a box of 1 − share of the area around a pixel, cut off at the image's edge."""
    half = 0.5 * (1 - share) ** 0.5
    top, bottom = max(int(row - half * height), 0), min(int(row + half * height), height)
    left, right = max(int(column - half * width), 0), min(int(column + half * width), width)
    return top, bottom, left, right


def cutmix(images: Tensor, top: int, bottom: int, left: int, right: int) -> tuple[Tensor, float]:
    """Replace a box in each image by that of the one before it; the share is what remains, after the clipping."""
    box = (..., slice(top, bottom), slice(left, right))
    images = images.clone(memory_format=torch.preserve_format)
    images[box] = images[box].roll(1, 0)
    return images, 1 - (bottom - top) * (right - left) / (images.shape[-2] * images.shape[-1])
