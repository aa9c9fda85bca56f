"""Readers: what each dataset option opens, as a `Source` of two splits.

A reader of one's own is any callable (`dataset._target_=my_package.MyData`): a class in torchvision's manner with
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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iolaus.data.splits import Photos, Source, Split, stratified

DOWNLOAD_TIMEOUT_SECONDS = 30.0
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's
LAYOUTS = {
    "MNIST": "MNIST/raw/*-ubyte", "FashionMNIST": "FashionMNIST/raw/*-ubyte", "CIFAR10": "cifar-10-batches-py/",
    "CIFAR100": "cifar-100-python/", "OxfordIIITPet": "oxford-iiit-pet/{images,annotations}/",
}  # fmt: skip


def digits() -> Source:
    """scikit-learn's 1,797 digits, 8 × 8 grey: they come with the package. A stratified fifth is the test set."""
    pixels, labels = _digits_file() or _digits_by_import()
    images = torch.from_numpy(pixels * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)  # levels 0 to 16
    targets = torch.from_numpy(labels.astype(np.int64))
    train, test = stratified(targets, 0.2, seed=0)
    whole = Split(images, targets)
    return Source(whole.take(train), whole.take(test), [str(i) for i in range(10)], channels=1, image_size=8)


def _digits_file() -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels and labels from scikit-learn's own file: to import it, for this alone, takes more than a second."""
    found = importlib.util.find_spec("sklearn")
    path = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else Path()
    if not path.is_file():
        return None
    with gzip.open(path, "rt") as file:
        numbers = np.array([line.split(",") for line in file], dtype=np.float64)
    return numbers[:, :-1], numbers[:, -1]


def _digits_by_import() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def synthetic(
    num_classes: int = 10, size: int = 32, channels: int = 3, train_count: int = 2048, test_count: int = 512
) -> Source:
    """Noise of a given shape, for benchmarks and tests: nothing can be learned from it but speed."""
    generator = torch.Generator().manual_seed(0)

    def noise(count: int) -> Split:
        images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(count) % num_classes)

    return Source(noise(train_count), noise(test_count), [str(i) for i in range(num_classes)], channels, size)


def from_torchvision(name: str, root: str, download: bool = False) -> Source:
    """A dataset of `torchvision.datasets` by its class name, read from `root` in torchvision's layout.

    Raises ValueError, with what to do, for an unknown name, and when the files are missing or damaged.
    """
    from torchvision import datasets

    reader: Any = getattr(datasets, name, None)
    if not isinstance(reader, type):  # in lower case it is a module of torchvision's
        close = difflib.get_close_matches(name.lower(), [n.lower() for n in datasets.__all__], n=1)
        hint = "".join(f"; did you mean {n}?" for n in datasets.__all__ if n.lower() in close)
        raise ValueError(f"name={name}: torchvision.datasets has no such class{hint}")
    existed = Path(root).is_dir()

    def open_split(**split: Any) -> Any:
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)  # else a stalled download waits for ever
        try:
            return reader(root=root, download=download, **split)
        except (RuntimeError, OSError, AssertionError, ValueError) as error:  # the last two of a damaged idx file
            for folder, _, _ in () if existed else os.walk(root, topdown=False):
                with contextlib.suppress(OSError):  # one that holds a file stays
                    os.rmdir(folder)
            there = f"in {Path(root).absolute()}, as {LAYOUTS.get(name, 'in the layout of torchvision')}"
            if download:
                why = " ".join(str(error).split())  # torchvision tells of each mirror in a line of its own
                raise ValueError(f"{name}: download failed ({why}); try again, or put the files {there}") from error
            advice = f"get it by dataset.download=true, or put it {there}"
            raise ValueError(f"root={root}: {name} is missing or damaged; {advice}") from error
        finally:
            socket.setdefaulttimeout(timeout)

    return read(open_split, inspect.signature(reader))


class ImageFiles:
    """Image files in class folders: torchvision's ImageFolder, but grey images stay grey, and hidden names don't count.

    samples: of (path, class index), in the order of classes and names. Raises FileNotFoundError where there is no
    class folder, or no image in one.
    """

    def __init__(self, folder: Path) -> None:
        self.classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not self.classes:
            raise FileNotFoundError("it holds no class folders")
        self.samples = [(path, k) for k, name in enumerate(self.classes) for path in self._images(folder / name)]
        self.targets = [label for _, label in self.samples]
        if empty := [name for k, name in enumerate(self.classes) if k not in set(self.targets)]:
            raise FileNotFoundError(f"no images ({', '.join(IMAGE_SUFFIXES)}) for the classes {', '.join(empty)}")

    @staticmethod
    def _images(folder: Path) -> list[str]:
        paths = [Path(where, name) for where, _, names in os.walk(folder, followlinks=True) for name in names]
        visible = [p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
        return sorted(str(p) for p in visible if p.suffix.lower() in IMAGE_SUFFIXES)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """A PIL image as the file has it, and its class."""
        from PIL import Image

        path, label = self.samples[index]
        with Image.open(path) as image:
            image.load()
        return image, label


def image_folder(root: str, test_fraction: float = 0.2) -> Source:
    """A folder of class folders of images, or one of `train/` and `test/` (or `val/`) folders of such.

    Where there is no test folder, a stratified `test_fraction` of the images is the test set, always the same.
    Hidden files and folders don't count. Raises ValueError for a missing or empty folder and for unequal classes.
    """
    base = Path(root)
    if not base.is_dir():
        raise ValueError(f"root={base.absolute()}: no such folder; it should hold train/ and test/, or class folders")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction={test_fraction}: must be between 0 and 1")
    try:
        if not (base / "train").is_dir():
            files = ImageFiles(base)
            whole = split_of(files)
            train, test = stratified(whole.targets, test_fraction, seed=0)
            return _source(whole.take(train), whole.take(test), files.classes)
        held_out = next((base / n for n in ("test", "val") if (base / n).is_dir()), None)
        if held_out is None:
            raise ValueError(f"root={base.absolute()}: has train/, but neither test/ nor val/ beside it")
        train_folder, test_folder = ImageFiles(base / "train"), ImageFiles(held_out)
    except FileNotFoundError as error:
        raise ValueError(f"root={base.absolute()}: {error}") from error
    if train_folder.classes != test_folder.classes:
        odd = sorted(set(train_folder.classes) ^ set(test_folder.classes))
        raise ValueError(
            f"root={base.absolute()}: train/ and {held_out.name}/ differ in their classes: {', '.join(odd)}"
        )
    return _source(split_of(train_folder), split_of(test_folder), train_folder.classes)


def read(factory: Callable[..., Any], signature: inspect.Signature) -> Source:
    """Call a reader, a class in torchvision's manner for both splits, and give its Source.

    signature: the reader's own. Raises ValueError when the reader is of neither kind (see above).
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
        raise ValueError(f"the reader gave {type(source).__name__}: it must return iolaus.data.sources.Source, "
                         "or have an argument train (a bool) or split")  # fmt: skip
    train_split, test_split = split_of(train), split_of(test)
    labels = torch.cat([train_split.targets, test_split.targets]).unique()
    classes = list(getattr(train, "classes", None) or map(str, range(int(labels.max()) + 1)))
    if labels.min() < 0 or labels.max() >= len(classes):
        # a part of a dataset's classes with their numbers in the whole, as a subset of Oxford-IIIT Pet has them
        if len(labels) != len(classes):
            raise ValueError(f"{len(classes)} classes, but labels from {int(labels.min())} to {int(labels.max())}")
        train_split.targets, test_split.targets = (
            torch.searchsorted(labels, s.targets) for s in (train_split, test_split)
        )
    return _source(train_split, test_split, classes)


def split_of(dataset: Any) -> Split:
    """The images and targets of a torchvision-like dataset; its arrays where it is torchvision's own and has them."""
    if not len(dataset):
        raise ValueError(f"{type(dataset).__name__} holds no images")
    targets = next((getattr(dataset, n) for n in ("targets", "labels", "_labels") if hasattr(dataset, n)), None)
    if targets is None:
        targets = [int(dataset[i][1]) for i in range(len(dataset))]
    targets = torch.as_tensor(np.asarray(targets), dtype=torch.int64)
    if len(targets) != len(dataset):
        raise ValueError(f"{type(dataset).__name__} holds {len(dataset)} images, but {len(targets)} targets")
    data = getattr(dataset, "data", None)
    if type(dataset).__module__.startswith("torchvision.") and isinstance(data, np.ndarray | Tensor):
        images = torch.as_tensor(data)
        if images.ndim == 3:
            images = images.unsqueeze(1)
        elif images.shape[-1] in (1, 3):
            images = images.permute(0, 3, 1, 2)  # the memory stays in channels-last order, which convolutions like
        return Split(images, targets)
    return Split(Photos(dataset, range(len(dataset))), targets)


def _source(train: Split, test: Split, classes: list[str], default_size: int = 224) -> Source:
    # The size of images that are read one by one is that of the first when a few agree, else photographs' usual one.
    if isinstance(train.images, Tensor):
        return Source(train, test, classes, train.images.shape[1], train.images.shape[-1])
    step = -(-len(train.images) // 16)
    shapes = {tuple(image.shape[1:]) for image in train.images.readable(range(0, len(train.images), step))}
    sizes = {shape[1:] for shape in shapes}
    same = len(sizes) == 1 and len(set(next(iter(sizes)))) == 1
    return Source(train, test, classes, max(s[0] for s in shapes), next(iter(sizes))[0] if same else default_size)
