"""Weights of classes: balanced ones are scikit-learn's, and the training loss is torch's with them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, checked_config
from sklearn.utils.class_weight import compute_class_weight

from iolaus.config.build_criterion import build_criterion
from iolaus.methods.class_weights import weigh_classes


@pytest.mark.parametrize("seed", range(5))
def test_balanced_weights_are_those_of_scikit_learn(seed):
    targets = np.random.default_rng(seed).choice(5, size=200, p=[0.5, 0.3, 0.1, 0.06, 0.04])
    expected = compute_class_weight("balanced", classes=np.arange(5), y=targets)
    torch.testing.assert_close(weigh_classes("balanced", torch.from_numpy(targets), 5), torch.tensor(expected).float())


def test_balanced_classes_weigh_the_same_in_all_and_an_absent_one_nothing():
    targets = torch.tensor([0] * 6 + [1] * 3 + [3] * 1)
    weights = weigh_classes("balanced", targets, 4)
    in_all = torch.zeros(4).index_add_(0, targets, weights[targets])
    torch.testing.assert_close(in_all, torch.tensor([10 / 3, 10 / 3, 0.0, 10 / 3]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_criterion_is_torchs_with_its_argument_weight(smoothing):
    config = checked_config("loss.class_weights=[1,2,5]", f"loss.label_smoothing={smoothing}")
    criterion = build_criterion(config, 3, torch.tensor([0, 1, 2]))
    logits, targets = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    weight = torch.tensor([1.0, 2.0, 5.0])
    expected = F.cross_entropy(logits, targets, weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(criterion(logits, targets), expected)


MISTAKES = {
    "too few": (["loss.class_weights=[1]"], "loss.class_weights=[1]: must be one weight a class, 2 of them"),
    "a word": (["loss.class_weights=even"], "loss.class_weights=even: expected balanced or a list of numbers or null"),
    "negative": (["loss.class_weights=[1,-1]"], "0 or more, not all 0"),
    "all nothing": (["loss.class_weights=[0,0]"], "0 or more, not all 0"),
    "another loss": (["loss=mse", "+loss.class_weights=balanced"], "torch.nn.MSELoss takes no weights of classes"),
}


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_weights_that_fit_no_class_are_one_line(command, arguments, told):
    outcome = command(*TINY, *arguments)
    (line,) = outcome.err.splitlines()
    assert outcome.status == 2
    assert told in line
    assert outcome.runs == []
