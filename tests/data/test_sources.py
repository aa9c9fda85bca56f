"""Readers, on files in the true format of each dataset, and what they say of files that are broken or missing."""

import gc
import hashlib
import inspect
import json
import pickle
import struct
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import datasets

from iolaus.data.reading import read_all
from iolaus.data.shape import ImageShape
from iolaus.data.sources import digits, from_torchvision, image_folder, read_source
from iolaus.data.split import LazyImages, Source, Split
from iolaus.data.stratify import stratify
from iolaus.settings import DatasetSettings

ONE_STEP = ("trainer.epochs=1", "trainer.batch_size=8", "dataset.validation=0.2", "tracker=none")
SMALL = ("model=cnn", "model.widths=[4]")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


# ---- the files, as the datasets' authors have written them ---------------------------------------------------


def write_mnist(root, name="MNIST", counts=(20, 10)):
    """idx files: a magic number of type (8: bytes) and dimensions, the lengths as big-endian int32, the bytes."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for prefix, count in zip(("train", "t10k"), counts, strict=True):
        images, labels = noise(count, 28, 28, seed=count), np.arange(count, dtype=np.uint8) % 10
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())
    return raw


def write_cifar(root, monkeypatch, num_classes):
    """Pickled dicts of rows of 3072 bytes (all red, then green, then blue), and torchvision told of their md5."""
    reader = {10: datasets.CIFAR10, 100: datasets.CIFAR100}[num_classes]
    labels, names = {10: ("labels", "label_names"), 100: ("fine_labels", "fine_label_names")}[num_classes]
    folder = root / reader.base_folder
    folder.mkdir(parents=True)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name, seed):
        count = 2 * num_classes
        return [
            name,
            write(name, {"data": noise(count, 3072, seed=seed), labels: [k % num_classes for k in range(count)]}),
        ]

    train = [batch(name, seed) for seed, (name, _) in enumerate(reader.train_list)]
    test = [batch(name, seed=9) for name, _ in reader.test_list]
    md5 = write(reader.meta["filename"], {names: [f"class {k}" for k in range(num_classes)]})
    monkeypatch.setattr(reader, "train_list", train)
    monkeypatch.setattr(reader, "test_list", test)
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5})
    return folder


def write_pets(root, per_breed=5):
    """images/Breed_K.jpg of many sizes, and lines of image, class (from 1), species (1: cat), number of the breed."""
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    lines = []
    for label, (breed, species) in enumerate([("Abyssinian", 1), ("american_bulldog", 2), ("Bengal", 1)], start=1):
        for k in range(per_breed):
            Image.fromarray(noise(30 + 5 * k, 40, 3, seed=k)).save(folder / "images" / f"{breed}_{k}.jpg")
            lines.append(f"{breed}_{k} {label} {species} {label}\n")
    (folder / "annotations" / "list.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n" + "".join(lines))
    for name, keep in (("trainval", lambda k: k % per_breed > 1), ("test", lambda k: k % per_breed <= 1)):
        chosen = [line for k, line in enumerate(lines) if keep(k)]
        (folder / "annotations" / f"{name}.txt").write_text("".join(chosen))
    return folder


def write_folder(root, classes, count, size=(8, 8, 3), suffix="png"):
    for name in classes:
        (root / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(noise(*size, seed=k)).save(root / name / f"{k}.{suffix}")
    return root


def data_of(outcome):
    """The line of the log that describes the data, of a run that has come to its end."""
    assert outcome.status == 0, outcome.err
    assert (outcome.runs[0] / "results.json").is_file()
    return next(line for line in (outcome.runs[0] / "run.log").read_text().splitlines() if "data: " in line)


# ---- torchvision's datasets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_mnist_is_read_from_its_idx_files(tmp_path, name):
    write_mnist(tmp_path, name)
    source = from_torchvision(name, str(tmp_path))
    for split, count in ((source.train, 20), (source.test, 10)):
        assert torch.equal(split.images, torch.from_numpy(noise(count, 1, 28, 28, seed=count)))
        assert split.targets.tolist() == [k % 10 for k in range(count)]
    assert (len(source.classes), source.channels, source.image_size) == (10, 1, 28)


@pytest.mark.parametrize("num_classes", [10, 100])
def test_cifar_is_read_from_its_pickles(tmp_path, monkeypatch, num_classes):
    write_cifar(tmp_path, monkeypatch, num_classes)
    source = from_torchvision(f"CIFAR{num_classes}", str(tmp_path))
    batches = 5 if num_classes == 10 else 1
    rows = np.concatenate([noise(2 * num_classes, 3072, seed=seed) for seed in range(batches)])
    assert torch.equal(source.train.images, torch.from_numpy(rows.reshape(-1, 3, 32, 32)))
    assert source.train.targets.tolist() == [k % num_classes for k in range(2 * num_classes)] * batches
    assert torch.equal(source.test.images[0].flatten(), torch.from_numpy(noise(2 * num_classes, 3072, seed=9)[0]))
    assert (len(source.classes), source.channels, source.image_size) == (num_classes, 3, 32)
    assert source.classes[-1] == f"class {num_classes - 1}"


def test_pets_are_read_one_by_one_from_their_jpeg_files(tmp_path):
    folder = write_pets(tmp_path)
    source = from_torchvision("OxfordIIITPet", str(tmp_path))
    assert source.classes == ["Abyssinian", "American Bulldog", "Bengal"]
    assert source.train.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert source.test.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert (source.channels, source.image_size) == (3, 224)
    expected = np.array(Image.open(folder / "images" / "Abyssinian_2.jpg")).transpose(2, 0, 1)
    assert np.array_equal(source.train.images[0][0].numpy(), expected)


@pytest.mark.parametrize("option", ["mnist", "fashion_mnist"])
def test_mnist_trains_from_the_command_line(command, tmp_path, option):
    write_mnist(tmp_path / "data", {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[option], counts=(40, 10))
    outcome = command(f"dataset={option}", "dataset.root=data", *ONE_STEP, *SMALL)
    assert "30 train, 10 val, 10 test, 10 classes, 1x28x28" in data_of(outcome)


def test_grey_images_become_rgb_for_a_model_of_three_channels(command, tmp_path):
    write_mnist(tmp_path / "data", counts=(40, 10))
    outcome = command("dataset=mnist", "dataset.root=data", "model=resnet18", *ONE_STEP)
    assert "3x28x28" in data_of(outcome)


@pytest.mark.parametrize("num_classes", [10, 100])
def test_cifar_trains_from_the_command_line(command, tmp_path, monkeypatch, num_classes):
    write_cifar(tmp_path / "data", monkeypatch, num_classes)
    outcome = command(f"dataset=cifar{num_classes}", "dataset.root=data", *ONE_STEP, *SMALL)
    assert f"{2 * num_classes} test, {num_classes} classes, 3x32x32" in data_of(outcome)


def test_pets_train_from_the_command_line(command, tmp_path):
    write_pets(tmp_path / "data")
    outcome = command("dataset=oxford_iiit_pet", "dataset.root=data", *ONE_STEP, *SMALL, "dataset.image_size=32",
                      "trainer.batch_size=4")  # fmt: skip
    assert "6 train, 3 val, 6 test, 3 classes, 3x32x32" in data_of(outcome)


# ---- missing and damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("MNIST", "MNIST/raw/*-ubyte"),
        ("FashionMNIST", "FashionMNIST/raw/*-ubyte"),
        ("CIFAR10", "cifar-10-batches-py/"),
        ("CIFAR100", "cifar-100-python/"),
        ("OxfordIIITPet", "oxford-iiit-pet/{images,annotations}/"),
    ],
)
def test_missing_files_are_told_with_where_and_how(tmp_path, name, layout):
    root = tmp_path / "nowhere"
    with pytest.raises(ValueError, match="is missing or damaged") as raised:
        from_torchvision(name, str(root))
    told = str(raised.value)
    assert told.startswith(f"root={root}: {name} ")
    assert "dataset.download=true" in told
    assert f"put it in {root}, as {layout}" in told
    assert not root.exists()


def refuse(*arguments, **options):
    raise URLError("no network")


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "OxfordIIITPet"])
def test_a_failed_download_is_told_and_leaves_no_empty_folders(tmp_path, monkeypatch, name):
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    root = tmp_path / "nowhere"
    with pytest.raises(ValueError, match=f"{name}: download failed .*put the files in {root}, as "):
        from_torchvision(name, str(root), download=True)
    assert not root.exists()


def test_a_failed_download_is_one_line_for_a_person(command, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    outcome = command("dataset=mnist", "dataset.root=data", "dataset.download=true", *ONE_STEP, *SMALL)
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("iolaus: dataset: MNIST: download failed (")
    assert "no network" in line
    assert line.endswith("MNIST/raw/*-ubyte")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_touches_nothing_in_a_folder_that_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="download failed"):
        from_torchvision("CIFAR10", str(tmp_path), download=True)
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("content", [b"", b"\x1f", b"\x1f\x8b\x08\x08" + bytes(400), b"<html>Not found</html>"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_idx_file_is_told_like_a_missing_one(tmp_path, name, content):
    (write_mnist(tmp_path) / name).write_bytes(content)
    with pytest.raises(ValueError, match="MNIST is missing or damaged"):
        from_torchvision("MNIST", str(tmp_path))


def test_a_cut_idx_file_is_told_like_a_missing_one(tmp_path):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="MNIST is missing or damaged"):
        from_torchvision("MNIST", str(tmp_path))


def test_a_cifar_file_with_another_md5_is_told_like_a_missing_one(tmp_path, monkeypatch):
    path = write_cifar(tmp_path, monkeypatch, 10) / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="CIFAR10 is missing or damaged"):
        from_torchvision("CIFAR10", str(tmp_path))


def test_labels_of_other_files_are_noticed(tmp_path):
    raw = write_mnist(tmp_path)
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(ValueError, match="holds 20 images, but 10 targets"):
        from_torchvision("MNIST", str(tmp_path))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"name=MNISTT: torchvision.datasets has no such class; did you mean MNIST\?"):
        from_torchvision("MNISTT", "data")
    with pytest.raises(ValueError, match=r"name=mnist: torchvision.datasets has no such class; did you mean MNIST\?"):
        from_torchvision("mnist", "data")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "no image": lambda path: path.write_text("<html>"),
    "missing": Path.unlink,
}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # torchvision's reader leaves it open
@pytest.mark.parametrize("breaking", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_image_is_one_line_with_its_file_and_no_folder_is_left(command, tmp_path, breaking):
    path = write_pets(tmp_path / "data") / "images" / "american_bulldog_3.jpg"
    breaking(path)
    outcome = command("dataset=oxford_iiit_pet", "dataset.root=data", *ONE_STEP, *SMALL, "dataset.image_size=32")
    gc.collect()
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("iolaus: dataset: can't read image ")
    assert "data/oxford-iiit-pet/images/american_bulldog_3.jpg" in line
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "ppm", "tif", "webp"])
def test_a_cut_file_of_any_format_is_named(tmp_path, suffix):
    path = write_folder(tmp_path, "ab", 4, suffix=suffix) / "b" / f"2.{suffix}"
    cut(path)

    def read():
        source = image_folder(str(tmp_path))
        return [read_all(split.images, ImageShape(3, 8, 8), DatasetSettings()) for split in (source.train, source.test)]

    with pytest.raises(ValueError, match=f"can't read image {path}"):
        read()


# ---- a folder of images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_folder_with_train_and_test_or_val_is_taken_as_it_is(tmp_path, held_out):
    write_folder(tmp_path / "train", ["cat", "dog"], 3)
    write_folder(tmp_path / held_out, ["cat", "dog"], 2)
    source = image_folder(str(tmp_path))
    assert source.classes == ["cat", "dog"]
    assert source.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.test.targets.tolist() == [0, 0, 1, 1]
    assert (source.channels, source.image_size) == (3, 8)
    assert source.train.images.name(5) == str(tmp_path / "train" / "dog" / "2.png")
    assert torch.equal(source.train.images[5][0].permute(1, 2, 0), torch.from_numpy(noise(8, 8, 3, seed=2)))


@pytest.mark.parametrize(("fraction", "count"), [(0.2, 2), (0.5, 5)])
def test_one_folder_is_split_stratified_and_always_the_same(tmp_path, fraction, count):
    write_folder(tmp_path, "abc", 10)
    first, again = image_folder(str(tmp_path), fraction), image_folder(str(tmp_path), fraction)
    assert Counter(first.test.targets.tolist()) == {0: count, 1: count, 2: count}
    assert not set(first.train.images.indices) & set(first.test.images.indices)
    assert sorted([*first.train.images.indices, *first.test.images.indices]) == list(range(30))
    assert first.test.images.indices == again.test.images.indices


def test_the_order_is_that_of_torchvision(tmp_path):
    write_folder(tmp_path / "train", ["b", "a", "C"], 11)
    write_folder(tmp_path / "train" / "a" / "deeper", ["x"], 2)
    write_folder(tmp_path / "test", ["b", "a", "C"], 1)
    source = image_folder(str(tmp_path))
    expected = datasets.ImageFolder(tmp_path / "train")
    assert source.classes == expected.classes
    assert source.train.images.dataset.samples == expected.samples


def test_hidden_files_and_folders_and_other_files_do_not_count(tmp_path):
    write_folder(tmp_path, ["a", "b", ".cache"], 3)
    write_folder(tmp_path / "a", [".thumbnails"], 2)
    (tmp_path / "a" / "._0.png").write_bytes(b"what macOS leaves on a stick")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    source = image_folder(str(tmp_path), test_fraction=0.4)
    assert source.classes == ["a", "b"]
    assert len(source.train.targets) + len(source.test.targets) == 6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_images_stay_grey_with_their_range(tmp_path, dtype):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    for k in range(8):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        Image.fromarray(levels.astype(dtype) * (257 if dtype == np.uint16 else 1)).save(
            tmp_path / "ab"[k % 2] / f"{k}.png"
        )
    source = image_folder(str(tmp_path))
    assert (source.channels, source.image_size) == (1, 8)
    assert torch.equal(source.train.images[0], torch.from_numpy(levels)[None, None])


def test_photos_can_be_sent_to_a_worker_process(tmp_path):
    images = image_folder(str(write_folder(tmp_path, "ab", 4))).train.images
    assert torch.equal(pickle.loads(pickle.dumps(images))[0], images[0])


def test_the_size_is_the_shorter_side_of_the_images_where_they_agree_and_else_224(tmp_path):
    write_folder(tmp_path / "same", "ab", 4, size=(20, 20, 3))
    write_folder(tmp_path / "oblong", "ab", 4, size=(20, 30, 3))
    assert image_folder(str(tmp_path / "same")).image_size == 20
    assert image_folder(str(tmp_path / "oblong")).image_size == 20
    write_folder(tmp_path / "large", "ab", 2, size=(300, 400, 3))
    assert image_folder(str(tmp_path / "large")).image_size == 224
    write_folder(tmp_path / "large", "c", 2, size=(20, 20, 3))
    assert image_folder(str(tmp_path / "large")).image_size == 224


def test_classes_that_differ_are_named(tmp_path):
    write_folder(tmp_path / "train", ["cat", "dog", "eel"], 2)
    write_folder(tmp_path / "test", ["cat", "dog", "fox"], 2)
    with pytest.raises(ValueError, match=r"train/ and test/ differ in their classes: eel, fox"):
        image_folder(str(tmp_path))


FOLDERS = {
    "missing": (lambda root: None, "no such folder; it should hold train/ and test/, or class folders"),
    "empty": (lambda root: root.mkdir(), "it holds no class folders"),
    "without class folders": (lambda root: write_folder(root.parent, ["own"], 3), "it holds no class folders"),
    "empty class": (lambda root: (write_folder(root, "a", 3) / "hollow").mkdir(), "hollow"),
    "a class of one": (lambda root: (write_folder(root, "a", 3), write_folder(root, "b", 1)), "has 1 image: too few"),
}


@pytest.mark.parametrize(("prepare", "told"), FOLDERS.values(), ids=FOLDERS.keys())
def test_a_folder_that_cannot_be_used_is_one_line(command, tmp_path, prepare, told):
    prepare(tmp_path / "own")
    outcome = command("dataset=image_folder", "dataset.root=own", *ONE_STEP, *SMALL)
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("iolaus: dataset")
    assert told in line
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_test_fraction_out_of_range_is_refused(tmp_path, fraction):
    with pytest.raises(ValueError, match=f"test_fraction={fraction}"):
        image_folder(str(tmp_path), fraction)
    with pytest.raises(ValueError, match=f"test_fraction={fraction}"):
        from_torchvision("EuroSAT", str(tmp_path), test_fraction=fraction)


@pytest.mark.parametrize("empty", ["", " "])
def test_no_folder_is_not_the_current_folder(empty):
    for read in (image_folder, lambda root: from_torchvision("CIFAR10", root)):
        with pytest.raises(ValueError, match=f"root={empty}: must be a folder"):
            read(empty)
    with pytest.raises(ValueError, match=f"cache_dir={empty}: must be a folder"):
        DatasetSettings(cache_dir=empty)


def test_a_folder_trains_from_the_command_line(command, tmp_path):
    write_folder(tmp_path / "own", ["cat", "dog"], 20)
    outcome = command("dataset=image_folder", "dataset.root=own", *ONE_STEP, *SMALL)
    assert "26 train, 6 val, 8 test, 2 classes, 3x8x8" in data_of(outcome)


# ---- a dataset of one's own ----------------------------------------------------------------------------------


class WithTrain:
    """torchvision's manner: an argument `train`; items of PIL image and class."""

    def __init__(self, train=True, count=20):
        self.count = count if train else 6

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError
        return Image.fromarray(noise(8, 8, 3, seed=index)), index % 2


class WithSplit:
    """torchvision's other manner: an argument `split`; float images in [0, 1] as tensors, and `classes`."""

    classes = ("cat", "dog", "eel")

    def __init__(self, split):
        self.targets = [k % 3 for k in range({"train": 30, "test": 9}[split])]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return torch.from_numpy(noise(3, 8, 8, seed=index)) / 255, self.targets[index]


class WithTrainval(WithSplit):
    def __init__(self, split="trainval"):
        super().__init__({"trainval": "train", "test": "test"}[split])


def a_source(count=20):
    split = Split(torch.from_numpy(noise(count, 3, 8, 8)), torch.arange(count) % 2)
    return Source(split, split, ["cat", "dog"], channels=3, image_size=8)


@pytest.mark.parametrize(
    ("reader", "arguments", "told"),
    [
        ("WithTrain", [], "16 train, 4 val, 6 test, 2 classes, 3x8x8"),
        ("WithTrain", ["+dataset.count=30"], "24 train, 6 val, 6 test, 2 classes, 3x8x8"),
        ("WithSplit", [], "24 train, 6 val, 9 test, 3 classes, 3x8x8"),
        ("WithTrainval", [], "24 train, 6 val, 9 test, 3 classes, 3x8x8"),
        ("a_source", ["+dataset.count=10"], "8 train, 2 val, 10 test, 2 classes, 3x8x8"),
    ],
)
def test_a_dataset_of_ones_own_is_named_by_its_dotted_path(command, monkeypatch, reader, arguments, told):
    monkeypatch.setattr("iolaus.trust.targets.ALLOWED", (f"{__name__}.*",))
    outcome = command(f"dataset._target_={__name__}.{reader}", "dataset.mean=null", "dataset.std=null", *arguments,
                      *ONE_STEP, *SMALL)  # fmt: skip
    assert told in data_of(outcome)


def test_a_dataset_of_ones_own_has_the_usual_options_and_not_those_of_the_digits(command, monkeypatch):
    monkeypatch.setattr("iolaus.trust.targets.ALLOWED", (f"{__name__}.*",))
    own = (f"dataset._target_={__name__}.WithSplit", *ONE_STEP)

    def used(folder, *arguments):
        outcome = command(*own, *arguments, f"hydra.run.dir={folder}")
        assert outcome.status == 0, outcome.err
        config = json.loads((outcome.cwd / folder / "results.json").read_text())["config"]
        parts = config["model"]["widths"], config["optimizer"]["lr"], config["loss"]["label_smoothing"]
        return *parts, config["trainer"]["batch_size"], config["dataset"]["mirror"], config["scheduler"]["max_lr"]

    small = "trainer.batch_size=4"
    assert used("a", small) == ([32, 64, 128], 0.003, 0.0, 4, True, 0.003)
    assert used("b", small, "model.widths=[4]", "optimizer.lr=0.01") == ([4], 0.01, 0.0, 4, True, 0.01)
    assert used("c", small, "model=cnn_small", "loss=label_smoothing") == ([32, 64], 0.003, 0.1, 4, True, 0.003)
    outcome = command(f"dataset._target_={__name__}.WithSplit", "trainer.epochs=1", "tracker=none", "--cfg", "job")
    assert outcome.status == 0


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.4])
def test_floats_in_0_to_1_are_rounded_to_bytes(shift):
    levels = torch.arange(1, 255).view(1, 1, 254)
    assert torch.equal(LazyImages([((levels + shift) / 255, 0)], [0])[0][0], levels.to(torch.uint8))


class PartOfTheClasses(WithTrain):
    """Classes 2 and 5 of a larger dataset."""

    classes = ("cat", "dog")
    numbers = (2, 5)

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, self.numbers[label]


class MoreLabelsThanClasses(PartOfTheClasses):
    classes = ("cat",)


def test_labels_of_a_part_of_the_classes_are_renumbered():
    source = read_source(PartOfTheClasses, inspect.signature(PartOfTheClasses))
    assert source.train.targets.tolist() == [0, 1] * 10
    assert source.test.targets.tolist() == [0, 1] * 3


def test_labels_that_fit_no_classes_are_refused():
    with pytest.raises(ValueError, match="1 classes, but labels from 2 to 5"):
        read_source(MoreLabelsThanClasses, inspect.signature(MoreLabelsThanClasses))


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3)])
def test_arrays_are_taken_with_their_channels_last(shape):
    expected = noise(*shape).reshape(8, 9, -1).transpose(2, 0, 1)
    assert np.array_equal(LazyImages([(noise(*shape), 0)], [0])[0][0].numpy(), expected)


def not_a_reader():
    return [1, 2, 3]


def test_a_callable_of_another_kind_is_refused_with_what_it_must_be(command, monkeypatch):
    monkeypatch.setattr("iolaus.trust.targets.ALLOWED", (f"{__name__}.*",))
    outcome = command(f"dataset._target_={__name__}.not_a_reader", *ONE_STEP, *SMALL)
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert "gave list" in line
    assert "iolaus.data.sources.Source" in line


# ---- digits, and splits --------------------------------------------------------------------------------------


def test_digits_are_1797_of_8_by_8_and_a_stratified_fifth_is_the_test_set():
    source, again = digits(), digits()
    assert len(source.train.targets) + len(source.test.targets) == 1797
    assert source.train.images.shape[1:] == (1, 8, 8)
    for label in range(10):
        held_out, rest = ((split.targets == label).sum().item() for split in (source.test, source.train))
        assert held_out == round((held_out + rest) * 0.2)
    assert torch.equal(source.test.images, again.test.images)
    assert torch.equal(source.train.targets, again.train.targets)


def test_the_seventeen_levels_of_digits_are_spread_over_a_byte():
    images = digits().train.images
    assert images.dtype == torch.uint8
    assert images.unique().tolist() == [round(level * 255 / 16) for level in range(17)]


@given(st.dictionaries(st.integers(0, 9), st.integers(2, 40), min_size=1), st.floats(0.001, 0.999), st.integers(0, 9))
@settings(max_examples=50, deadline=None, database=None)
def test_a_stratified_part_has_its_share_of_every_class_and_the_rest_has_all_others(counts, fraction, seed):
    labels = np.repeat(list(counts), list(counts.values()))
    targets = torch.from_numpy(np.random.default_rng(seed).permutation(labels))
    rest, part = stratify(targets, fraction, seed)
    assert sorted(rest.tolist() + part.tolist()) == list(range(len(targets)))
    for label, count in counts.items():
        expected = min(max(1, round(count * fraction)), count - 1)
        assert (targets[part] == label).sum() == expected


def test_a_stratified_part_is_the_same_for_the_same_seed_and_sorted():
    targets = torch.arange(100) % 5
    first, again, other = (stratify(targets, 0.3, seed=seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, first.sort().values)


def test_both_parts_have_an_image_of_every_class():
    for fraction in (0.01, 0.99):
        rest, part = stratify(torch.arange(20) % 10, fraction, seed=0)
        assert len(rest) == len(part) == 10


def test_a_class_of_one_image_can_not_be_split():
    with pytest.raises(ValueError, match="class 7 has 1 image"):
        stratify(torch.tensor([3, 3, 3, 7]), 0.5, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_that_is_met_while_training_ends_the_run_in_one_line(command, tmp_path, workers):
    root = tmp_path / "pictures"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(root / label / f"{i}.png")
    train = image_folder(str(root)).train.images
    broken = Path(train.name(train.indices[1]))  # not one of those that tell the images' size at the start
    broken.write_bytes(broken.read_bytes()[:50])
    outcome = command(
        "dataset=image_folder", f"dataset.root={root}", "dataset.residency=streaming", "dataset.mean=[0.5]",
        "dataset.std=[0.5]", "dataset.image_size=8", f"dataset.num_workers={workers}", "trainer.batch_size=4",
        "tracker=none", "dataset.validation=0.2",
    )  # fmt: skip
    assert outcome.status == 1
    line = outcome.err.strip().splitlines()[-1]
    assert line.startswith("iolaus: can't read image ")
    assert str(broken) in line
    assert outcome.results["status"] == "failed"
