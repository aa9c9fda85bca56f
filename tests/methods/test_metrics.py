"""Figures that treat all classes alike, against scikit-learn."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from iolaus.methods.metrics import ClassCounts


def random_case(seed):
    """Logits without ties and targets, of which a class or two may have no image and others may never be predicted."""
    generator = np.random.default_rng(seed)
    classes, count = int(generator.integers(2, 14)), int(generator.integers(1, 60))
    present = generator.choice(classes, size=max(1, classes - int(generator.integers(0, 3))), replace=False)
    targets = generator.choice(present, size=count)
    logits = generator.normal(size=(count, classes)) + 1.5 * np.eye(classes)[targets]
    return torch.from_numpy(logits), torch.from_numpy(targets)


@pytest.mark.parametrize("seed", range(40))
def test_the_figures_are_those_of_scikit_learn(seed):
    logits, targets = random_case(seed)
    counts = ClassCounts()
    for part, own in zip(logits.split(16), targets.split(16), strict=True):
        counts.add(part, own)
    made, preds = counts.metrics(), logits.argmax(dim=1).numpy()
    with warnings.catch_warnings(action="ignore"):  # of classes that were predicted and have no image
        expected = {
            "balanced_accuracy": reference.balanced_accuracy_score(targets, preds),
            "f1": reference.f1_score(targets, preds, average="macro", zero_division=0),
        }
        if logits.shape[1] > 5:
            labels = range(logits.shape[1])
            expected["top5_accuracy"] = reference.top_k_accuracy_score(targets, logits.numpy(), k=5, labels=labels)
    assert made == pytest.approx(expected)


def test_of_five_classes_or_fewer_the_true_one_is_always_among_the_first_five():
    counts = ClassCounts()
    counts.add(torch.eye(5), torch.arange(5))
    assert "top5_accuracy" not in counts.metrics()
