"""MACs and activations against timm's published figures, the paper's formulas and the model's own parameters."""

import pytest
import timm
from torch import nn

from iolaus.preview.layers import list_layers

# GMACs and millions of activations at 224 px, as timm's results/benchmark tables and model cards give them
PUBLISHED = {"resnet18": (1.82, 2.48), "mobilenetv3_large_100": (0.22, 4.41), "vit_tiny_patch16_224": (1.26, 5.97)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_those_that_timm_publishes(name):
    whole, *_ = list_layers(timm.create_model(name), channels=3, size=224)
    assert (whole.macs / 1e9, whole.activations / 1e6) == pytest.approx(PUBLISHED[name], rel=0.02)


def test_a_layers_counts_are_its_formula():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    model[3].requires_grad_(False)
    whole, conv, relu, flat, linear = list_layers(model, channels=3, size=6)
    assert (conv.shape, conv.parameters, conv.macs, conv.activations) == ((8, 6, 6), 8 * 28, 8 * 36 * 27, 8 * 36)
    assert (linear.shape, linear.parameters, linear.trained, linear.macs) == ((5,), 5 * 289, 0, 5 * 288)
    assert relu.macs == flat.macs == 0
    assert (whole.name, whole.macs) == ("", conv.macs + linear.macs)
    assert (whole.parameters, whole.trained) == (conv.parameters + linear.parameters, conv.parameters)


def test_a_deep_model_is_told_by_its_blocks_and_the_table_stays_short():
    layers = list_layers(timm.create_model("resnet50"), channels=3, size=64)
    assert len(layers) <= 41
    assert "layer3.5" in [layer.name for layer in layers]
    assert sum(layer.macs for layer in layers if layer.name.count(".") == 0 and layer.name) == layers[0].macs


def test_counting_leaves_the_model_as_it_is_and_gives_up_where_there_are_no_numbers():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 2)

        def forward(self, images):
            assert float(images.sum()) >= 0  # a number, which the meta device does not have
            return self.linear(images.flatten(1))

    model = Picky()
    whole, linear = list_layers(model, channels=3, size=2)
    assert (whole.macs, whole.activations, whole.parameters) == (None, None, 26)
    assert linear.name == "linear"
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert not model._forward_hooks
