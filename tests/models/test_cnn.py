"""The small CNN: its size, and the images that it takes."""

import pytest
import torch

from iolaus.models.cnn import CNN


def parameters_of(in_channels, widths, num_classes):
    pairs = zip([in_channels, *widths], widths, strict=False)
    stages = sum(9 * narrow * wide + 9 * wide * wide + 2 * 2 * wide for narrow, wide in pairs)
    return stages + widths[-1] * num_classes + num_classes


@pytest.mark.parametrize(("in_channels", "widths"), [(1, (32, 64, 128)), (3, [8])])
def test_parameter_count_is_that_of_the_formula(in_channels, widths):
    model = CNN(num_classes=10, in_channels=in_channels, widths=widths)
    assert sum(p.numel() for p in model.parameters()) == parameters_of(in_channels, widths, 10)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 1, 28, 28), (2, 3, 32, 32), (2, 3, 24, 40), (2, 3, 224, 224)])
def test_images_of_any_size_train(shape):
    model = CNN(num_classes=7, in_channels=shape[1], widths=(4, 8, 16))
    logits = model(torch.randn(shape))
    logits.sum().backward()
    assert logits.shape == (2, 7)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("pixels", "last_map"), [(32, 4), (8, 1), (4, 1), (1, 1)])
def test_every_stage_halves_the_map_until_it_is_one_pixel(pixels, last_map):
    model = CNN(num_classes=10, in_channels=1, widths=(4, 8, 16))
    assert model.stages(torch.randn(2, 1, pixels, pixels)).shape[-2:] == (last_map, last_map)


def test_dropout_acts_in_training_only():
    model = CNN(num_classes=10, in_channels=1, widths=(4, 64), dropout=0.5)
    images = torch.randn(4, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
