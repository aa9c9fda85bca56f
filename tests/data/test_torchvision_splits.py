"""Datasets of torchvision by name: their official splits, from tiny files in the datasets' own formats."""

import json
import re

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from iolaus.data.sources import from_torchvision
from iolaus.data.torchvision_splits import BY_FLAG, BY_NAME, NAMES, WHOLE, labelled_split


def write_image(path, level=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 8), (level, 0, 0)).save(path)


def counts(source):
    return {name: len(split.targets) for name, split in source.splits.items()}


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """The files' checksums are those of the true ones."""
    for module in (datasets.svhn, datasets.stl10, datasets.flowers102):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: True)


def test_svhn_has_train_test_and_extra_that_can_be_joined(tmp_path):
    for name, count in (("train", 12), ("test", 5), ("extra", 7)):
        images = np.full((32, 32, 3, count), len(name), dtype=np.uint8)
        scipy.io.savemat(tmp_path / f"{name}_32x32.mat", {"X": images, "y": np.arange(count)[:, None] % 10 + 1})
    source = from_torchvision("SVHN", str(tmp_path))
    assert counts(source) == {"train": 12, "test": 5}
    assert source.classes == [str(digit) for digit in range(10)]  # digit 0 has the label 10 in the file
    more = from_torchvision("SVHN", str(tmp_path), train_split="train+extra")
    assert counts(more) == {"train": 19, "test": 5}
    assert more.train.images[:, 0, 0, 0].tolist() == [5] * 12 + [5] * 7
    with pytest.raises(ValueError, match=r"name=SVHN: Unknown value 'more' for argument split.*'extra'"):
        from_torchvision("SVHN", str(tmp_path), train_split="more")


def test_stl10_is_its_labelled_part_and_unlabelled_images_are_refused(tmp_path):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("\n".join(["airplane", "bird", "car"]) + "\n")
    for name, count in (("train", 9), ("test", 6)):
        np.full((count, 3, 96, 96), count, dtype=np.uint8).tofile(folder / f"{name}_X.bin")
        (np.arange(count, dtype=np.uint8) % 3 + 1).tofile(folder / f"{name}_y.bin")
    np.zeros((2, 3, 96, 96), dtype=np.uint8).tofile(folder / "unlabeled_X.bin")
    source = from_torchvision("STL10", str(tmp_path))
    assert counts(source) == {"train": 9, "test": 6}
    assert source.classes == ["airplane", "bird", "car"]
    assert source.train.images.shape == (9, 3, 96, 96)
    with pytest.raises(ValueError, match="train_split: some of its images have no label"):
        from_torchvision("STL10", str(tmp_path), train_split="train+unlabeled")


def test_flowers102_keeps_its_validation_set(tmp_path):
    folder = tmp_path / "flowers-102"
    ids = {"trnid": [1, 2, 3], "valid": [4, 5, 6], "tstid": [7, 8, 9, 10]}
    for number in range(1, 11):
        write_image(folder / "jpg" / f"image_{number:05}.jpg")
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.arange(10)[None] % 3 + 1})
    scipy.io.savemat(folder / "setid.mat", {name: np.array([values]) for name, values in ids.items()})
    source = from_torchvision("Flowers102", str(tmp_path))
    assert counts(source) == {"train": 3, "val": 3, "test": 4}
    assert source.test.targets.tolist() == [0, 1, 2, 0]


def test_food101_and_dtd_are_read_by_their_lists(tmp_path):
    food = {"apple_pie": [f"apple_pie/{k}" for k in range(4)], "waffles": [f"waffles/{k}" for k in range(4)]}
    for names in food.values():
        for name in names:
            write_image(tmp_path / "food-101" / "images" / f"{name}.jpg")
    (tmp_path / "food-101" / "meta").mkdir()
    for split, part in (("train", slice(0, 3)), ("test", slice(3, 4))):
        listed = {label: names[part] for label, names in food.items()}
        (tmp_path / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(listed))
    source = from_torchvision("Food101", str(tmp_path))
    assert counts(source) == {"train": 6, "test": 2}
    assert source.classes == ["apple_pie", "waffles"]

    folder = tmp_path / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{kind}/{kind}_{number}.jpg" for kind in ("banded", "woven")]
        for name in names:
            write_image(folder / "images" / name)
        for partition in (1, 2):
            (folder / "labels" / f"{split}{partition}.txt").write_text("\n".join(names[:partition] or names) + "\n")
    source = from_torchvision("DTD", str(tmp_path), arguments={"partition": 2})
    assert counts(source) == {"train": 2, "val": 2, "test": 2}
    assert source.classes == ["banded", "woven"]


def test_gtsrb_labels_are_known_without_reading_an_image(tmp_path, monkeypatch):
    training = tmp_path / "gtsrb" / "GTSRB" / "Training"
    for label in range(3):
        for number in range(2):
            write_image(training / f"{label:05}" / f"{number}.ppm")
    write_image(tmp_path / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / "00000.ppm")
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("Filename;Width;ClassId\n00000.ppm;10;2\n")
    source = from_torchvision("GTSRB", str(tmp_path))
    assert counts(source) == {"train": 6, "test": 1}
    assert source.test.targets.tolist() == [2]
    monkeypatch.setattr(datasets.GTSRB, "__getitem__", lambda self, index: pytest.fail("an image was read for a label"))
    assert labelled_split(datasets.GTSRB(str(tmp_path), "train")).targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.classes == ["0", "1", "2"]


def test_a_dataset_without_splits_gets_a_stratified_test_set(tmp_path):
    for kind in ("AnnualCrop", "Forest"):
        for number in range(10):
            write_image(tmp_path / "eurosat" / "2750" / kind / f"{kind}_{number}.jpg")
    source = from_torchvision("EuroSAT", str(tmp_path), test_fraction=0.3)
    assert counts(source) == {"train": 14, "test": 6}
    assert torch.bincount(source.test.targets).tolist() == [3, 3]
    assert source.classes == ["AnnualCrop", "Forest"]
    with pytest.raises(ValueError, match="test_split=test: EuroSAT has no splits to choose from"):
        from_torchvision("EuroSAT", str(tmp_path), test_split="test")


def test_imagenette_evaluates_on_its_validation_images(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for wnid in ("n01440764", "n03888257"):
            for number in range(count):
                write_image(tmp_path / "imagenette2" / split / wnid / f"{number}.JPEG")
    source = from_torchvision("Imagenette", str(tmp_path))
    assert counts(source) == {"train": 6, "test": 4}


def test_every_name_is_a_class_of_torchvision_with_the_splits_that_it_is_said_to_have():
    import inspect

    assert len(set(NAMES)) == len(NAMES)
    for name in NAMES:
        parameters = inspect.signature(getattr(datasets, name)).parameters
        assert ("split" in parameters) == (name in BY_NAME or name == "EMNIST"), name
        assert ("train" in parameters) == (name in BY_FLAG and name != "EMNIST"), name
    assert set(WHOLE).isdisjoint(BY_NAME)


@pytest.mark.parametrize(
    ("name", "told"),
    {
        "VOCDetection": "name=VOCDetection: not a dataset of single images with one label; ",
        "DatasetFolder": "not a dataset of single images",
        "Flowers": "has no such class; did you mean Flowers102?",
        "LSUN": "name=LSUN: reads files that can run code",
    }.items(),
)
def test_what_is_no_classification_dataset_is_refused(tmp_path, name, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        from_torchvision(name, str(tmp_path))


def test_functions_and_unknown_arguments_are_refused(tmp_path):
    for key in ("loader", "transform", "root", "partitoin"):
        with pytest.raises(ValueError, match=f"arguments.{key}=torch.load: no argument of DTD"):
            from_torchvision("DTD", str(tmp_path), arguments={key: "torch.load"})
