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


def test_by_default_it_is_the_layers_of_a_plain_sequential_with_their_names_and_first_weights():
    torch.manual_seed(0)
    model = MLP(num_classes=10, in_channels=3, image_size=32)
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Dropout(0.0), nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.0),
        nn.Linear(256, 10),
    )  # fmt: skip
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in plain]
    assert list(model.state_dict()) == [f"layers.{name}" for name in plain.state_dict()]
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm)])
def test_plain_layers_have_the_norm_before_the_activation(norm, kind):
    model = MLP(num_classes=10, in_channels=1, image_size=8, hidden=(16, 12), norm=norm, activation="gelu")
    hidden = [nn.Linear, kind, nn.GELU, nn.Dropout]
    assert [type(layer) for layer in model.layers] == [nn.Flatten, *hidden, *hidden, nn.Linear]


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_with_expansion_each_further_layer_is_a_residual_block(norm):
    model = MLP(num_classes=10, in_channels=1, image_size=8, hidden=[16, 16, 16], norm=norm, expansion=4).eval()
    normalise = {
        "none": lambda features: features,
        "batch": lambda features: features / (1 + 1e-5) ** 0.5,  # of the running statistics that it starts with
        "layer": lambda features: nn.functional.layer_norm(features, [16]),
    }[norm]
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (64, 16), (16, 64), (64, 16), (16, 64), (64, 16), (16, 10),
    ]  # fmt: skip
    images = torch.randn(4, 1, 8, 8)
    features = linear[0](images.reshape(4, 64))
    for wide, narrow in (linear[1:3], linear[3:5]):
        features = features + narrow(wide(normalise(features)).relu())
    torch.testing.assert_close(model(images), linear[5](normalise(features)))


def test_dropout_acts_within_the_blocks_too():
    model = MLP(num_classes=10, in_channels=1, image_size=8, hidden=(16, 16), dropout=0.5, expansion=2)
    images = torch.randn(4, 1, 8, 8)
    assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"norm": "group"}, "norm=group: must be one of none, batch, layer"),
        ({"activation": "tanh"}, "activation=tanh: must be one of relu, gelu"),
        ({"hidden": (16, 8), "expansion": 4}, r"hidden=\[16, 8\], expansion=4"),
        ({"hidden": (), "expansion": 4}, r"hidden=\[\], expansion=4"),
        ({"hidden": (16, 16), "expansion": 0}, r"hidden=\[16, 16\], expansion=0"),
    ],
)
def test_what_makes_no_network_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        MLP(num_classes=10, in_channels=1, image_size=8, **arguments)
