"""The classification datasets of torchvision: how each is split, and a Source of its splits (`dataset=torchvision`)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from iolaus.data.csv_file import assemble
from iolaus.data.make_source import split_of
from iolaus.data.split import ImageDataset, Source, Split, join
from iolaus.errors import nearest

# an argument `train` (a bool)
BY_FLAG = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "CIFAR10", "CIFAR100", "USPS")
# an argument `split`: its values for train, val and test; without labels for test, val is the test set, as in papers
BY_NAME: dict[str, tuple[str, str | None, str]] = {
    "CLEVRClassification": ("train", None, "val"),
    "Country211": ("train", "valid", "test"),
    "DTD": ("train", "val", "test"),
    "FER2013": ("train", None, "test"),
    "FGVCAircraft": ("train", "val", "test"),
    "Flowers102": ("train", "val", "test"),
    "Food101": ("train", None, "test"),
    "GTSRB": ("train", None, "test"),
    "ImageNet": ("train", None, "val"),
    "Imagenette": ("train", None, "val"),
    "LFWPeople": ("train", None, "test"),
    "OxfordIIITPet": ("trainval", None, "test"),
    "PCAM": ("train", "val", "test"),
    "Places365": ("train-standard", None, "val"),
    "RenderedSST2": ("train", "val", "test"),
    "STL10": ("train", None, "test"),
    "StanfordCars": ("train", None, "test"),
    "SVHN": ("train", None, "test"),
}
# no official splits: a stratified part is the test set
WHOLE = ("Caltech101", "Caltech256", "EuroSAT", "INaturalist", "Omniglot", "SEMEION", "SUN397")
NAMES = (*BY_FLAG, *BY_NAME, *WHOLE)
# where the labels are, if not in targets or labels: pairs of (file, label)
PAIRS = ("_samples", "_flat_character_images")


def read_official(
    name: str, open_part: Callable[..., ImageDataset], chosen: Mapping[str, str | None], test_fraction: float
) -> Source:
    """A Source of the official splits of a dataset.

    open_part: opens the dataset, with an argument `train` or `split` where it has one. chosen: other values of `split`
    for train, val and test, several joined by a plus (`train+extra`). Raises ValueError.
    """
    given = {role: value for role, value in chosen.items() if value is not None}
    if given and name not in BY_NAME:
        role, value = next(iter(given.items()))
        raise ValueError(f"{role}_split={value}: {name} has no splits to choose from")
    parts: dict[str, list[dict[str, str | bool]]]
    if name in BY_FLAG:
        parts = {"train": [{"train": True}], "test": [{"train": False}]}
    elif name in WHOLE:
        parts = {"train": [{}]}
    else:
        official = dict(zip(("train", "val", "test"), BY_NAME[name], strict=True))
        names = {role: value for role, value in {**official, **given}.items() if value is not None}
        parts = {role: [{"split": part} for part in value.split("+")] for role, value in names.items()}
    splits: dict[str, Split] = {}
    classes: list[str] | None = None
    for role, arguments in parts.items():
        for argument in arguments:
            opened = open_part(**argument)
            classes = classes or class_names(opened)
            split = labelled_split(opened)
            splits[role] = join(splits[role], split) if role in splits else split
    return assemble(splits, number_classes(splits, classes), test_fraction)


def class_names(dataset: Any) -> list[str] | None:
    """The names of a dataset's classes, if it has any. ImageNet's classes have several names each, tuples of words."""
    found = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if found and all(isinstance(name, str | tuple) for name in found):
        return [name if isinstance(name, str) else name[0] for name in found]
    return None


def labelled_split(dataset: Any) -> Split:
    """The images and targets of a dataset without reading the images, wherever torchvision keeps the labels."""
    pairs = next((getattr(dataset, attribute) for attribute in PAIRS if hasattr(dataset, attribute)), None)
    if not hasattr(dataset, "targets") and not hasattr(dataset, "labels"):
        if pairs is not None:
            dataset.targets = [int(label) for _, label in pairs]
        elif hasattr(dataset, "y"):  # Caltech's
            dataset.targets = [int(label) for label in dataset.y]
        elif hasattr(dataset, "index") and isinstance(dataset.index, list):  # of INaturalist: (class, file)
            dataset.targets = [int(label) for label, _ in dataset.index]
    return split_of(dataset)


def number_classes(splits: Mapping[str, Split], classes: list[str] | None) -> list[str]:
    """Make the targets count from 0, and name the classes by their numbers where they have no names.

    Some datasets hold a part of their classes, with the labels that those have in the whole. Raises ValueError for
    images without a label (STL10's `unlabeled`).
    """
    labels = torch.from_numpy(np.unique(torch.cat([split.targets for split in splits.values()])))
    if labels[0] < 0:
        raise ValueError(f"train_split: some of its images have no label ({int(labels[0])})")
    if classes is not None and int(labels[-1]) < len(classes):
        return classes
    for split in splits.values():
        split.targets = torch.searchsorted(labels, split.targets)
    return classes if classes is not None and len(classes) == len(labels) else [str(int(label)) for label in labels]


def check_name(name: str) -> None:
    """Raise ValueError for a dataset that is none of single images with one label each."""
    if name not in NAMES:
        raise ValueError(f"name={name}: not a dataset of single images with one label; {nearest(name, NAMES)}")
