"""Losses as the loop calls them equal their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iolaus.augment.mix import Mixed
from iolaus.methods.losses import loss_functions

LOGITS = 3 * torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tensor([0, 4, 2, 2, 1, 3, 0])


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Mean of −Σ q·log p, where q gives `smoothing` to all classes alike (Szegedy et al. 2016, section 7)."""
    classes = logits.shape[1]
    q = torch.full_like(logits, smoothing / classes)
    q[torch.arange(len(targets)), targets] += 1 - smoothing
    return -(q * (logits - logits.exp().sum(dim=1, keepdim=True).log())).sum(dim=1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_for_training_and_evaluation_is_plain(smoothing):
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    train_loss, evaluation_loss = loss_functions(criterion, one_hot=False, num_classes=5)
    torch.testing.assert_close(train_loss(LOGITS, TARGETS), cross_entropy(LOGITS, TARGETS, smoothing))
    torch.testing.assert_close(evaluation_loss(LOGITS, TARGETS), cross_entropy(LOGITS, TARGETS, 0.0))
    assert criterion.label_smoothing == smoothing


WEIGHT = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
CRITERIA = {
    "mean": nn.CrossEntropyLoss(label_smoothing=0.1),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted": nn.CrossEntropyLoss(weight=WEIGHT.clone(), label_smoothing=0.1),
    "weighted sum": nn.CrossEntropyLoss(weight=WEIGHT.clone(), reduction="sum"),
    "a class ignored": nn.CrossEntropyLoss(ignore_index=3),
    "a class ignored, weighted": nn.CrossEntropyLoss(weight=WEIGHT.clone(), ignore_index=3),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_evaluation_is_the_mean_over_images_whatever_the_batches_reduction_and_weights(name):
    _, evaluation_loss = loss_functions(CRITERIA[name], one_hot=False, num_classes=5)
    rows = -LOGITS.log_softmax(dim=1)[torch.arange(7), TARGETS]
    for size in (1, 2, 7):
        batches = zip(LOGITS.split(size), TARGETS.split(size), strict=True)
        total = sum(evaluation_loss(logits, targets) * len(logits) for logits, targets in batches)
        torch.testing.assert_close(total / 7, rows.mean())


def test_evaluation_of_summed_squares_is_their_mean_over_images():
    _, evaluation_loss = loss_functions(nn.MSELoss(reduction="sum"), one_hot=True, num_classes=5)
    squares = (LOGITS - F.one_hot(TARGETS, 5)).square().sum(dim=1)
    torch.testing.assert_close(evaluation_loss(LOGITS, TARGETS), squares.mean())


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", [*CRITERIA, "squares"])
def test_the_losses_of_a_batchs_parts_add_up_to_its_own(name, mixed):
    criterion = nn.MSELoss() if name == "squares" else CRITERIA[name]
    train_loss, _ = loss_functions(criterion, one_hot=name == "squares", num_classes=5)
    targets = Mixed(TARGETS, TARGETS.roll(1), 0.3) if mixed else TARGETS
    for size in (4, 5, 7):
        parts = [slice(first, first + size) for first in range(0, 7, size)]
        total = sum(train_loss(LOGITS[part], targets[part], targets) for part in parts)
        torch.testing.assert_close(total, train_loss(LOGITS, targets))


def test_the_criterion_keeps_its_weights_for_training():
    criterion = nn.CrossEntropyLoss(weight=WEIGHT.clone())
    train_loss, _ = loss_functions(criterion, one_hot=False, num_classes=5)
    assert torch.equal(criterion.weight, WEIGHT)
    torch.testing.assert_close(train_loss(LOGITS, TARGETS), F.cross_entropy(LOGITS, TARGETS, weight=WEIGHT))


def test_mse_is_of_one_hot_targets_in_training_and_evaluation():
    squares = sum((LOGITS[i, c] - (1 if c == TARGETS[i] else 0)) ** 2 for i in range(7) for c in range(5))
    for loss_fn in loss_functions(nn.MSELoss(), one_hot=True, num_classes=5):
        torch.testing.assert_close(loss_fn(LOGITS, TARGETS), squares / 35)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("criterion", "one_hot"), [(nn.CrossEntropyLoss(label_smoothing=0.1), False), (nn.MSELoss(), True)]
)
def test_logits_of_16_bits_are_taken_to_float32(criterion, one_hot, dtype):
    logits = LOGITS.to(dtype)
    targets = F.one_hot(TARGETS, 5).float() if one_hot else TARGETS
    for loss_fn in loss_functions(criterion, one_hot, num_classes=5):
        assert loss_fn(logits, TARGETS).dtype == torch.float32
    assert torch.equal(loss_functions(criterion, one_hot, 5)[0](logits, TARGETS), criterion(logits.float(), targets))
