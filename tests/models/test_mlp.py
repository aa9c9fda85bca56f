"""The perceptron against its formula."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from iolaus.models.mlp import MLP


def parameters_of(widths):
    return sum(inputs * outputs + outputs for inputs, outputs in pairwise(widths))


@pytest.mark.parametrize("hidden", [(512, 256), [64], ()])
def test_parameter_count_is_that_of_the_formula(hidden):
    model = MLP(num_classes=10, in_channels=3, image_size=32, hidden=hidden)
    assert sum(p.numel() for p in model.parameters()) == parameters_of([3072, *hidden, 10])


def test_it_equals_the_layers_written_out():
    model = MLP(num_classes=10, in_channels=1, image_size=8, hidden=(16,))
    first, last = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    images = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(model(images), last(first(images.reshape(4, 64)).relu()))


def test_dropout_acts_in_training_only():
    model = MLP(num_classes=10, in_channels=1, image_size=8, dropout=0.5)
    images = torch.randn(4, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_images_of_another_size_are_refused():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        MLP(num_classes=10, in_channels=3, image_size=32)(torch.randn(2, 3, 28, 28))
