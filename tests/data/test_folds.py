"""k-fold cross-validation, and a dataset's own validation set: what is trained on, and what validates."""

import numpy as np
import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iolaus.data.open import image_shape, open_data
from iolaus.data.split import LazyImages, Source, Split, join
from iolaus.data.stratify import hold_out, stratified_folds
from iolaus.settings import DatasetSettings, ModelSettings


def numbered_images(first, count):
    """Images of two classes in turn; every pixel of the k-th has the level first + k."""
    levels = torch.arange(first, first + count, dtype=torch.uint8)
    return Split(levels.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous(), torch.arange(count) % 2)


def levels_of(batches):
    """The level of each image of a split; its statistics are 0 and 1."""
    return sorted(
        round(255 * float(image[0, 0, 0])) for images, _ in batches.batches(7, 0, train=False) for image in images
    )


def open_source(source, **dataset):
    dataset = DatasetSettings(mean=[0.0], std=[1.0], num_workers=0, **dataset)
    shape = image_shape(source, dataset, ModelSettings(), None)
    return open_data(source, dataset, shape, augmentation=None, seed=0, device=torch.device("cpu"))


@settings(deadline=None)
@given(counts=st.lists(st.integers(2, 40), min_size=1, max_size=6), folds=st.integers(2, 7), seed=st.integers(0, 10))
def test_folds_are_disjoint_complete_and_balanced_in_every_class(counts, folds, seed):
    targets = torch.from_numpy(np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)))
    parts = [hold_out(targets, DatasetSettings(folds=folds, fold=k, validation_seed=seed)) for k in range(folds)]
    assert torch.equal(torch.cat([part for _, part in parts]).sort().values, torch.arange(len(targets)))
    for rest, part in parts:
        assert torch.equal(torch.cat([rest, part]).sort().values, torch.arange(len(targets)))
        assert torch.equal(part, part.sort().values)
    sizes = [len(part) for _, part in parts]
    assert max(sizes) - min(sizes) <= 1
    for label in range(len(counts)):
        of_class = [int((targets[part] == label).sum()) for _, part in parts]
        assert max(of_class) - min(of_class) <= 1


def test_folds_move_with_the_validation_seed_alone():
    targets = torch.arange(40) % 4
    first, again, other = (stratified_folds(targets, 5, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_class_of_one_image_has_no_folds():
    with pytest.raises(ValueError, match="class 1 has 1 image: too few for folds=3"):
        stratified_folds(torch.tensor([0, 0, 0, 1]), 3, seed=0)


def test_the_datasets_own_validation_set_comes_before_the_fraction():
    source = Source(numbered_images(0, 20), numbered_images(60, 6), ["a", "b"], 1, 4, val=numbered_images(40, 8))
    data = open_source(source)
    found = [levels_of(split) for split in (data.train, data.val, data.test)]
    assert found == [[*range(20)], [*range(40, 48)], [*range(60, 66)]]


@pytest.mark.parametrize("residency", ["resident", "streaming"])
def test_folds_and_validation_on_test_train_on_the_own_validation_set_too(residency):
    source = Source(numbered_images(0, 20), numbered_images(60, 6), ["a", "b"], 1, 4, val=numbered_images(40, 8))
    everything = sorted([*range(20), *range(40, 48)])
    held_out = []
    for fold in range(4):
        data = open_source(source, folds=4, fold=fold, residency=residency)
        assert sorted(levels_of(data.train) + levels_of(data.val)) == everything
        held_out += levels_of(data.val)
    assert sorted(held_out) == everything

    on_test = open_source(source, validation="test", residency=residency)
    assert levels_of(on_test.train) == everything
    assert levels_of(on_test.val) == [*range(60, 66)]


def test_joined_splits_read_the_images_of_both(tmp_path):
    class Files:
        def __init__(self, levels):
            self.samples = [(str(tmp_path / f"{level}.png"), level % 2) for level in levels]
            for path, _ in self.samples:
                Image.new("L", (3, 3), int(path.split("/")[-1][:-4])).save(path)

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, index):
            return Image.open(self.samples[index][0]), self.samples[index][1]

    first, second = Files([5, 6, 7]), Files([8, 9])
    joined = join(
        Split(LazyImages(first, [2, 0]), torch.tensor([1, 1])), Split(LazyImages(second, [0, 1]), torch.tensor([0, 1]))
    )
    assert [int(joined.images[k].max()) for k in range(4)] == [7, 5, 8, 9]
    assert joined.images.name(2) == second.samples[0][0]
    assert joined.targets.tolist() == [1, 1, 0, 1]


def test_a_run_says_its_fold(command):
    result = command(*TINY, "dataset.validation=0.1", "dataset.folds=4", "dataset.fold=3").results
    assert (result["folds"], result["fold"]) == (4, 3)
    assert "15 train, 5 val (1 of 4 folds), 6 test" in result["data"]
