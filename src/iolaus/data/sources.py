"""Readers: the callables behind the dataset options, each of which gives a `Source`.

The user's own reader is any callable (`dataset._target_=my_package.MyData`): a class in torchvision's manner with
an argument `train` (a bool) or `split` ("train", "test"), whose items are (image, class index), or a function that
returns a `Source`.
"""

import contextlib
import difflib
import gzip
import importlib.util
import inspect
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from iolaus.data.image_folder import read_folder
from iolaus.data.make_source import make_source, split_of
from iolaus.data.split import BrokenImage, ImageDataset, Source, Split
from iolaus.data.stratify import stratify
from iolaus.data.torchvision_splits import BY_FLAG, check_name, read_official
from iolaus.data.trusted import UNCHECKED_DATASETS
from iolaus.errors import nearest
from iolaus.settings import require, require_folder, require_fraction

DOWNLOAD_TIMEOUT_SECONDS = 30.0
LAYOUTS = {
    "MNIST": "MNIST/raw/*-ubyte", "FashionMNIST": "FashionMNIST/raw/*-ubyte", "CIFAR10": "cifar-10-batches-py/",
    "CIFAR100": "cifar-100-python/", "OxfordIIITPet": "oxford-iiit-pet/{images,annotations}/",
}  # fmt: skip


def digits() -> Source:
    """The 1,797 digits of scikit-learn's package, 8 × 8 grey. A stratified fifth is the test set."""
    pixels, labels = _digits_file() or _digits_by_import()
    images = torch.from_numpy(pixels * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)  # levels 0 to 16
    targets = torch.from_numpy(labels.astype(np.int64))
    train, test = stratify(targets, 0.2, seed=0)
    whole = Split(images, targets)
    return Source(whole.take(train), whole.take(test), [str(i) for i in range(10)], channels=1, image_size=8)


def _digits_file() -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels and labels from scikit-learn's own file: importing the library takes more than a second."""
    found = importlib.util.find_spec("sklearn")
    path = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else Path()
    if not path.is_file():
        return None
    with gzip.open(path, "rt") as file:
        numbers = np.array([line.split(",") for line in file], dtype=np.float64)
    return numbers[:, :-1], numbers[:, -1]


def _digits_by_import() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels


def synthetic(
    num_classes: int = 10, size: int = 32, channels: int = 3, train_count: int = 2048, test_count: int = 512
) -> Source:
    """Uniform noise of a given shape, for benchmarks and tests. Raises ValueError for a number below 1."""
    numbers = {"num_classes": num_classes, "size": size, "channels": channels}
    for name, value in (numbers | {"train_count": train_count, "test_count": test_count}).items():
        require(value >= 1, name, value, "1 or more")
    generator = torch.Generator().manual_seed(0)

    def noise(count: int) -> Split:
        images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(count) % num_classes)

    return Source(noise(train_count), noise(test_count), [str(i) for i in range(num_classes)], channels, size)


def from_torchvision(
    name: str,
    root: str,
    download: bool = False,
    train_split: str | None = None,
    val_split: str | None = None,
    test_split: str | None = None,
    test_fraction: float = 0.2,
    arguments: dict[str, str | int] | None = None,
) -> Source:
    """A classification dataset of `torchvision.datasets` by its class name, read from `root` in torchvision's layout.

    Its official splits are known (torchvision_splits.py); train_split, val_split and test_split choose others, several
    joined by a plus. Without an official test set a stratified `test_fraction` of the images is it. arguments: further
    ones of the class. Raises ValueError, with advice, for an unknown name and for missing or damaged files.
    """
    from torchvision import datasets

    require_folder("root", root)
    require_fraction("test_fraction", test_fraction)
    reader = getattr(datasets, name, None)
    if name in UNCHECKED_DATASETS:
        raise ValueError(f"name={name}: reads files that can run code")
    if not isinstance(reader, type):  # lower-case names are torchvision's modules
        close = difflib.get_close_matches(name.lower(), [n.lower() for n in datasets.__all__], n=1)
        hint = "".join(f"; did you mean {n}?" for n in datasets.__all__ if n.lower() in close)
        raise ValueError(f"name={name}: torchvision.datasets has no such class{hint}")
    check_name(name)
    further = check_further(reader, arguments or {})
    if "download" in inspect.signature(reader).parameters or name in BY_FLAG:
        further["download"] = download
    existed = Path(root).is_dir()

    def open_split(**split: str | bool) -> ImageDataset:
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)  # without one a stalled download never ends
        try:
            opened: ImageDataset = reader(root=root, **further, **split)
            return opened
        except (RuntimeError, OSError, AssertionError, ValueError) as error:  # the last two: a damaged idx file
            if str(error).startswith("Unknown value"):  # for an argument, with those that are allowed
                raise ValueError(f"name={name}: {error}") from error
            for folder, _, _ in () if existed else os.walk(root, topdown=False):
                with contextlib.suppress(OSError):  # folders with files stay
                    os.rmdir(folder)
            there = f"in {Path(root).absolute()}, as {LAYOUTS.get(name, 'in the layout of torchvision')}"
            if download:
                why = " ".join(str(error).split())  # torchvision's has a line for each mirror
                raise ValueError(f"{name}: download failed ({why}); try again, or put the files {there}") from error
            advice = f"get it by dataset.download=true, or put it {there}"
            raise ValueError(f"root={root}: {name} is missing or damaged; {advice}") from error
        finally:
            socket.setdefaulttimeout(timeout)

    chosen = {"train": train_split, "val": val_split, "test": test_split}
    return read_official(name, open_split, chosen, test_fraction)


def check_further(reader: Callable[..., Any], arguments: dict[str, str | int]) -> dict[str, str | int]:
    """A copy of further arguments of a dataset's class. Raises ValueError for one that it does not have.

    Those that the launcher gives itself are none, nor are functions, which have keys of their own.
    """
    ours = {"root", "train", "download", "transform", "target_transform", "transforms", "loader", "kwargs"}
    allowed = inspect.signature(reader).parameters.keys() - ours
    for key in arguments.keys() - allowed:
        raise ValueError(f"arguments.{key}={arguments[key]}: no argument of {reader.__name__}; {nearest(key, allowed)}")
    return dict(arguments)


def image_folder(
    root: str,
    test_fraction: float = 0.2,
    class_order: Literal["name", "natural"] = "name",
    min_per_class: int | None = None,
) -> Source:
    """Pictures in class folders, as people have them (folder_layout.py): split into train, val and test, or not.

    Without a test folder a stratified `test_fraction` of the images is the test set, always the same. class_order:
    name, as torchvision's, or natural (2 before 10). min_per_class: classes with fewer training images are left out.
    Raises ValueError with what was seen where the folders can't be understood.
    """
    require_folder("root", root)
    base = Path(root)
    if not base.is_dir():
        what = "is a file" if base.is_file() else "no such folder"
        raise ValueError(f"root={base.absolute()}: {what}; it should hold train/ and test/, or class folders")
    require_fraction("test_fraction", test_fraction)
    require(min_per_class is None or min_per_class >= 1, "min_per_class", min_per_class, "1 or more, or null")
    try:
        return read_folder(base, test_fraction, class_order == "natural", min_per_class or 1)
    except BrokenImage:
        raise
    except ValueError as error:
        raise ValueError(f"root={base.absolute()}: {error}") from error


def read_source(factory: Callable[..., Any], signature: inspect.Signature) -> Source:
    """Call a reader, once for each split if it is a class in torchvision's manner, and return its Source.

    signature: the reader's. Raises ValueError for a reader of neither kind (see above).
    """
    if "train" in signature.parameters:
        train, test = factory(train=True), factory(train=False)
    elif "split" in signature.parameters:
        splits = str(signature.parameters["split"].default)
        train, test = factory(split="trainval" if splits == "trainval" else "train"), factory(split="test")
    else:
        source = factory()
        if isinstance(source, Source):
            return source
        must = "it must return iolaus.data.sources.Source, or have an argument train (a bool) or split"
        raise ValueError(f"the reader gave {type(source).__name__}: {must}")
    train_split, test_split = split_of(train), split_of(test)
    labels = torch.from_numpy(np.unique(torch.cat([train_split.targets, test_split.targets])))
    classes = list(getattr(train, "classes", None) or map(str, range(int(labels.max()) + 1)))
    if labels.min() < 0 or labels.max() >= len(classes):
        # some of a dataset's classes, with the labels that they have in the whole (Oxford-IIIT Pet has such subsets)
        if len(labels) != len(classes):
            raise ValueError(f"{len(classes)} classes, but labels from {int(labels.min())} to {int(labels.max())}")
        for split in (train_split, test_split):
            split.targets = torch.searchsorted(labels, split.targets)
    return make_source(train_split, test_split, classes)
