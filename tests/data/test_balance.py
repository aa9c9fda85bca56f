"""Class-balanced draws: how often each class and image comes, and that an epoch is a function of seed and epoch."""

import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from iolaus.augment.pipeline import Augmentation
from iolaus.data.balance import balanced_order
from iolaus.data.epoch import EpochSettings
from iolaus.data.resident import Resident
from iolaus.data.shape import ImageShape
from iolaus.data.split import Split
from iolaus.data.streaming import Streaming
from iolaus.settings import DatasetSettings

STATISTICS = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
COUNTS = (60, 9, 2)


def imbalanced_targets(counts=COUNTS):
    targets = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))]


def draw(targets, seed=0):
    return balanced_order(targets, torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any), seed=st.integers(0, 5))
def test_every_class_comes_equally_often_and_its_images_too(counts, seed):
    targets = imbalanced_targets(counts)
    order = draw(targets, seed)
    assert len(order) == len(targets)
    share = torch.bincount(targets[order], minlength=len(counts))[torch.tensor(counts) > 0]
    assert share.max() - share.min() <= 1
    times = torch.bincount(order, minlength=len(targets))
    for label in targets.unique():
        of_class = times[targets == label]
        assert of_class.max() - of_class.min() <= 1


def test_the_draws_move_with_the_seed_and_over_epochs_reach_every_image():
    targets = imbalanced_targets()
    assert torch.equal(draw(targets, 3), draw(targets, 3))
    orders = [draw(targets, seed) for seed in range(12)]
    assert not torch.equal(orders[0], orders[1])
    assert len(torch.cat(orders).unique()) == len(targets)


@pytest.fixture
def pair():
    """The same imbalanced images, resident and streaming through one process."""
    targets = imbalanced_targets()
    images = torch.randint(256, (len(targets), 3, 8, 8), dtype=torch.uint8)
    settings = EpochSettings(ImageShape(3, 8, 8), STATISTICS, Augmentation(transform=jolt), seed=5, balanced=targets)
    streaming = Streaming(Split(images, targets), settings, DatasetSettings(num_workers=0), torch.device("cpu"))
    yield Resident(images, targets, settings), streaming
    streaming.close()


def jolt(image):
    """A function of the user's that draws."""
    return (image.int() + torch.randint(256, ())).remainder(256).to(torch.uint8)


def test_resident_and_streaming_give_the_same_balanced_batches_and_go_on_within_an_epoch(pair):
    for epoch in (0, 3):
        first, second = (list(data.batches(10, epoch, train=True)) for data in pair)
        assert len(first) == len(second) == 7
        for (images, targets), (others, other_targets) in zip(first, second, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(targets, other_targets)
        rest = list(pair[1].batches(10, epoch, train=True, start=4))
        assert all(torch.equal(a[0], b[0]) for a, b in zip(rest, first[4:], strict=True))


def test_an_image_that_comes_again_is_augmented_anew(pair):
    rare = [image for images, targets in pair[0].batches(10, 0, train=True) for image in images[targets == 2]]
    assert len(rare) > 10  # of two images
    assert len({tuple(image.flatten().tolist()) for image in rare}) == len(rare)


def test_evaluation_counts_every_image_once(pair):
    targets = torch.cat([targets for _, targets in pair[0].batches(10, 0, train=False)])
    assert torch.bincount(targets).tolist() == list(COUNTS)


def test_balanced_draws_need_shuffling(command):
    outcome = command(*TINY, "dataset.sampler=balanced", "trainer.shuffle=false")
    assert outcome.status == 2
    assert outcome.err == "iolaus: dataset.sampler=balanced: draws images at random; it needs trainer.shuffle=true\n"
    assert outcome.runs == []
