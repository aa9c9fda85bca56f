"""Mixup and cutmix: against their formulas, against torchvision, and in the loss and the accuracy."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from iolaus.augment.mix import Mix, Mixed, clipped_box, cutmix, mixup, weigh
from iolaus.loop import count_correct
from iolaus.methods.losses import loss_functions


def batch(count=16, size=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator), torch.randint(5, (count,), generator=generator)


def test_mixup_is_its_papers_equation():
    images, _ = batch()
    torch.testing.assert_close(mixup(images, 0.3), 0.3 * images + 0.7 * images.roll(1, 0))


def test_cutmix_is_its_papers_equation():
    images, _ = batch()
    mask = torch.ones(12, 12)
    mask[2:7, 4:10] = 0
    mixed, share = cutmix(images, 2, 7, 4, 10)
    torch.testing.assert_close(mixed, mask * images + (1 - mask) * images.roll(1, 0))
    assert share == pytest.approx(mask.mean().item())


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_is_torchvisions_for_the_same_share(alpha):
    images, targets = batch()
    mixed, both = Mix(mixup_alpha=alpha)(images, targets, seed=3)
    reference = v2.MixUp(num_classes=5)
    params = {"labels": targets, "batch_size": len(images), "lam": both.share}
    torch.testing.assert_close(mixed, reference.transform(images, params))
    soft = weigh(lambda classes: F.one_hot(classes, 5), both)
    torch.testing.assert_close(soft, reference.transform(targets, params))


def test_cutmix_is_torchvisions_for_the_same_box():
    images, targets = batch()
    mixed, share = cutmix(images, 2, 7, 4, 10)
    reference = v2.CutMix(num_classes=5)
    params = {"labels": targets, "batch_size": len(images), "box": (4, 2, 10, 7), "lam_adjusted": share}
    assert torch.equal(mixed, reference.transform(images, params))
    soft = share * F.one_hot(targets, 5) + (1 - share) * F.one_hot(targets.roll(1), 5)
    torch.testing.assert_close(soft, reference.transform(targets, params))


def test_the_share_is_that_of_the_box_after_it_is_clipped():
    images, targets = batch(size=32)
    for seed in range(200):
        mixed, both = Mix(cutmix_alpha=1.0)(images, targets, seed)
        replaced = (mixed != images).any(dim=1)[0].double().mean().item()
        assert 1 - both.share == pytest.approx(replaced, abs=1e-12)


def test_a_box_in_the_corner_is_cut_off_and_one_inside_has_its_area():
    assert clipped_box(0.75, 32, 32, 0, 31) == (0, 8, 23, 32)
    top, bottom, left, right = clipped_box(0.75, 32, 32, 16, 16)
    assert (bottom - top) * (right - left) == 16 * 16


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_drawn_from_beta(alpha):
    images, targets = batch(2, 2)
    shares = torch.tensor([Mix(mixup_alpha=alpha)(images, targets, seed)[1].share for seed in range(4000)])
    variance = 1 / (4 * (2 * alpha + 1))  # of Beta(α, α)
    assert shares.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 4000))
    assert shares.var().item() == pytest.approx(variance, rel=0.1)


def test_where_both_are_on_each_batch_is_one_of_them_half_of_the_time():
    images, targets = batch(4, 8)
    cut = 0
    for seed in range(1000):
        mixed, _ = Mix(mixup_alpha=1.0, cutmix_alpha=1.0)(images, targets, seed)
        cut += bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
    assert abs(cut - 500) < 4 * math.sqrt(250)


def test_a_batch_is_mixed_with_its_probability_and_a_seed_mixes_always_alike():
    images, targets = batch(2, 2)
    mix = Mix(mixup_alpha=1.0, mix_probability=0.3)
    mixed = [isinstance(mix(images, targets, seed)[1], Mixed) for seed in range(1000)]
    assert abs(sum(mixed) - 300) < 4 * math.sqrt(210)
    seed = mixed.index(True)
    assert torch.equal(mix(images, targets, seed)[0], mix(images, targets, seed)[0])
    assert not Mix()
    assert not Mix(mixup_alpha=1.0, mix_probability=0.0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["mixup_alpha", "cutmix_alpha"])
def test_the_batch_given_stays_as_it_was_and_the_memory_format_too(name, memory_format):
    images, targets = batch()
    images = images.contiguous(memory_format=memory_format)
    before = images.clone()
    mixed, _ = Mix(**{name: 1.0})(images, targets, seed=1)
    assert torch.equal(images, before)
    assert mixed.is_contiguous(memory_format=memory_format)


# ---- in the loss and the accuracy ----------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_a_mixed_batch_is_that_of_soft_targets(smoothing):
    logits = torch.randn(16, 5, dtype=torch.float64).float()
    _, targets = batch()
    mixed = Mixed(targets, targets.roll(1), 0.3)
    loss_fn, _ = loss_functions(torch.nn.CrossEntropyLoss(label_smoothing=smoothing), one_hot=False, num_classes=5)
    soft = 0.3 * F.one_hot(targets, 5) + 0.7 * F.one_hot(targets.roll(1), 5)
    torch.testing.assert_close(loss_fn(logits, mixed), F.cross_entropy(logits, soft, label_smoothing=smoothing))


def test_mse_of_a_mixed_batch_is_that_of_mixed_one_hot_targets():
    logits, (_, targets) = torch.randn(16, 5), batch()
    loss_fn, _ = loss_functions(torch.nn.MSELoss(), one_hot=True, num_classes=5)
    soft = 0.3 * F.one_hot(targets, 5) + 0.7 * F.one_hot(targets.roll(1), 5)
    torch.testing.assert_close(loss_fn(logits, Mixed(targets, targets.roll(1), 0.3)), F.mse_loss(logits, soft))


def test_train_accuracy_counts_the_share_of_the_class_that_was_found():
    logits = F.one_hot(torch.tensor([0, 1, 2, 3]), 5).float()
    mixed = Mixed(torch.tensor([0, 4, 2, 4]), torch.tensor([4, 1, 2, 4]), 0.75)
    assert count_correct(logits, mixed).item() == pytest.approx(0.75 + 0.25 + 1.0 + 0.0)
    assert count_correct(logits, mixed.targets).item() == 2


def test_a_value_of_mixed_targets_is_weighted_by_the_shares_and_a_part_keeps_them():
    targets, partners = torch.tensor([0, 1, 2, 3]), torch.tensor([3, 0, 1, 2])
    both = Mixed(targets, partners, 0.25)
    assert weigh(lambda classes: classes.sum().float(), targets) == 6.0
    assert torch.equal(weigh(lambda classes: classes.float(), both), 0.25 * targets + 0.75 * partners)
    part = both[1:3]
    assert torch.equal(part.targets, targets[1:3])
    assert torch.equal(part.partners, partners[1:3])
    assert part.share == 0.25
