"""Class-balanced draws: every class as often as any other, for data in which some are rare (`dataset.sampler`)."""

import torch
from torch import Tensor


def balanced_order(targets: Tensor, generator: torch.Generator) -> Tensor:
    """An epoch of `len(targets)` draws in which the counts of the classes differ by at most one, shuffled.

    The images of a class are drawn without replacement, and all of them again when they are used up: a rare image
    comes several times an epoch, a frequent one in some epochs only. Classes without an image have no share.
    targets: (n,) int64. Returns (n,) int64 indices of images.
    """
    labels, counts = targets.unique(return_counts=True)
    members = targets.argsort(stable=True).split(counts.tolist())  # the images of each class
    share, rest = divmod(len(targets), len(labels))
    quotas = torch.full((len(labels),), share)
    quotas[torch.randperm(len(labels), generator=generator)[:rest]] += 1
    drawn = []
    for images, quota in zip(members, quotas.tolist(), strict=True):
        rounds = -(-quota // len(images))
        passes = [images[torch.randperm(len(images), generator=generator)] for _ in range(rounds)]
        drawn += [torch.cat(passes)[:quota]] if passes else []
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=generator)]
