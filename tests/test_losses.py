"""Losses as the loop calls them equal their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iolaus.losses import loss_functions

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


def test_evaluation_keeps_all_of_a_loss_but_its_smoothing():
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    criterion = nn.CrossEntropyLoss(weight=weight, reduction="sum", label_smoothing=0.1)
    _, evaluation_loss = loss_functions(criterion, one_hot=False, num_classes=5)
    rows = -LOGITS.log_softmax(dim=1)[torch.arange(7), TARGETS]
    torch.testing.assert_close(evaluation_loss(LOGITS, TARGETS), (weight[TARGETS] * rows).sum())


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
