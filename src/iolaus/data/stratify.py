"""Which images are held out: a stratified part, or one of several folds, drawn from a seed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iolaus.errors import printable
from iolaus.settings import DatasetSettings

RARE_FRACTION = 0.05  # of the classes: so many may have too few images to be split


def stratify(
    targets: Tensor, fraction: float, seed: int, classes: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Split indices so that `fraction` of each class is in the second part: (rest, part), both sorted int64.

    A class of one image stays in the first part, if such classes are few (RARE_FRACTION of them all). Else, since both
    parts need an image of each class, raises ValueError. classes: their names, for the message.
    """
    generator, labels = np.random.default_rng(seed), targets.numpy()
    in_part = np.zeros(len(labels), dtype=bool)
    every = members_of_classes(labels)
    single = [int(labels[members[0]]) for members in every if len(members) < 2]
    if len(single) > RARE_FRACTION * len(every):
        raise ValueError(f"{describe_class(single[0], classes)} has 1 image: too few to hold out a part")
    for members in map(generator.permutation, every):
        in_part[members[: min(max(1, round(len(members) * fraction)), len(members) - 1)]] = True
    return torch.from_numpy(np.flatnonzero(~in_part)), torch.from_numpy(np.flatnonzero(in_part))


def members_of_classes(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of each class's images, ascending, class after class; one sort, however many classes there are."""
    _, counts = np.unique(labels, return_counts=True)
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def describe_class(label: int, classes: Sequence[str] | None) -> str:
    """`class zebra (7)` for a message, `class 7` where names are unknown or the same."""
    name = str(label) if classes is None else printable(classes[label])
    return f"class {name}" if name == str(label) else f"class {name} ({label})"


def stratified_folds(targets: Tensor, folds: int, seed: int, classes: Sequence[str] | None = None) -> Tensor:
    """The fold of each image, (n,) int64 from 0 to `folds` − 1, drawn from `seed`.

    Folds differ by at most one image in every class, and by at most one in all. Raises ValueError when a class has
    fewer than two images, since without the only one nothing is left to train on.
    """
    generator, labels = np.random.default_rng(seed), targets.numpy()
    members = [generator.permutation(images) for images in members_of_classes(labels)]
    if alone := [int(labels[images[0]]) for images in members if len(images) < 2]:
        raise ValueError(f"{describe_class(alone[0], classes)} has 1 image: too few for folds={folds}")
    # dealt like cards, class after class: where one class ends, the next goes on with the next fold
    order, fold_of = np.concatenate(members), np.empty(len(labels), dtype=np.int64)
    fold_of[order] = np.arange(len(order)) % folds
    return torch.from_numpy(fold_of)


def hold_out(
    targets: Tensor, dataset: DatasetSettings, classes: Sequence[str] | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """Indices of the images to train on and to validate with (sorted int64); None and None where test validates.

    Raises ValueError, with what to do, where classes are too small.
    """
    if dataset.folds:
        validates = stratified_folds(targets, dataset.folds, dataset.validation_seed, classes).eq(dataset.fold or 0)
        return (~validates).nonzero().flatten(), validates.nonzero().flatten()
    if isinstance(dataset.validation, str):
        return None, None
    try:
        return stratify(targets, dataset.validation, dataset.validation_seed, classes)
    except ValueError as error:
        hint = (
            "dataset.validation=test selects on the test set; dataset.min_per_class leaves classes out (image_folder)"
        )
        raise ValueError(f"{error} for validation; {hint}") from error
