"""Colour jitter: what is drawn for an image, and what a batch of draws does."""

import itertools

import pytest
import torch
from conftest import generator
from torchvision.transforms.v2 import functional as reference

from iolaus.augment.color import BRIGHTNESS, CONTRAST, HUE, SATURATION, color_jitter, draw_color_jitter, shift_hue

ADJUST = {
    BRIGHTNESS: reference.adjust_brightness,
    CONTRAST: reference.adjust_contrast,
    SATURATION: reference.adjust_saturation,
    HUE: reference.adjust_hue,
}


def noise(*shape):
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator(7))


def rows(drawn, part):
    return {name: values[part] for name, values in drawn.items()}


@pytest.mark.parametrize(
    "strengths", [(0.4, 0.4, 0.4, 0.0), (0.8, 0.8, 0.8, 0.2), (1.5, 1.5, 1.5, 0.5), (0, 0, 0, 0.1)]
)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 9, 14)])
def test_color_jitter_does_what_torchvision_does_to_float_images_one_by_one(strengths, shape):
    images = noise(96, *shape)
    images[-1], images[-2] = 100, 0
    drawn = draw_color_jitter(96, *strengths, generator())

    jittered = color_jitter(images, drawn)

    assert jittered.dtype == torch.uint8
    expected = []
    for image, ops, factors in zip(images.float() / 255, drawn["op"].tolist(), drawn["factor"].tolist(), strict=True):
        for op, factor in zip(ops, factors, strict=True):
            image = ADJUST[op](image, factor)
        expected.append(image * 255)
    difference = (jittered - torch.stack(expected).round()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.002


def test_the_order_of_the_ops_changes_the_image():
    images = noise(24, 3, 8, 8)[:1].expand(24, -1, -1, -1)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    factors = torch.tensor([1.8, 0.5, 1.7, 0.1])[orders]
    assert len(color_jitter(images, {"op": orders, "factor": factors}).unique(dim=0)) > 12


def test_every_order_is_drawn_equally_often():
    drawn = draw_color_jitter(48_000, 0.4, 0.4, 0.4, 0.1, generator())
    orders, counts = drawn["op"].unique(dim=0, return_counts=True)
    assert sorted(map(tuple, orders.tolist())) == list(itertools.permutations(range(4)))
    spread = (48_000 * (1 / 24) * (23 / 24)) ** 0.5
    assert (counts - 2000).abs().max() <= 4 * spread


@pytest.mark.parametrize(
    ("op", "strengths", "low", "high"),
    [
        (BRIGHTNESS, (0.4, 0.1, 0.1, 0.1), 0.6, 1.4),
        (CONTRAST, (0.1, 1.5, 0.1, 0.1), 0.0, 2.5),
        (SATURATION, (0.1, 0.1, 0.2, 0.1), 0.8, 1.2),
        (HUE, (0.1, 0.1, 0.1, 0.5), -0.5, 0.5),
    ],
)
def test_factors_are_uniform_over_their_range(op, strengths, low, high):
    drawn = draw_color_jitter(20_000, *strengths, generator())
    factors = drawn["factor"][drawn["op"] == op].double()
    assert len(factors) == 20_000
    place = (factors - low) / (high - low)
    assert -1e-6 <= place.min() < 0.001
    assert 0.999 < place.max() <= 1 + 1e-6
    tenths = torch.histc(place, bins=10, min=0, max=1)
    assert (tenths - 2000).abs().max() <= 4 * (20_000 * 0.1 * 0.9) ** 0.5


def test_an_op_of_strength_0_is_left_out():
    drawn = draw_color_jitter(100, 0.0, 0.3, 0.0, 0.2, generator())
    assert drawn["op"].sort(dim=1).values.unique(dim=0).tolist() == [[CONTRAST, HUE]]


def test_without_any_strength_images_stay_as_they_are():
    images = noise(10, 3, 8, 8)
    assert torch.equal(color_jitter(images, draw_color_jitter(10, 0, 0, 0, 0, generator())), images)


def test_saturation_and_hue_leave_grey_images_as_they_are():
    images = noise(50, 1, 8, 8)
    assert torch.equal(color_jitter(images, draw_color_jitter(50, 0, 0, 1.0, 0.5, generator())), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_comes_out_the_same_in_any_batch(channels):
    images, drawn = noise(60, channels, 17, 15), draw_color_jitter(60, 0.8, 0.8, 0.8, 0.2, generator())
    whole = color_jitter(images, drawn)
    for size in (1, 7, 40):
        parts = torch.arange(60).split(size)
        assert torch.equal(torch.cat([color_jitter(images[part], rows(drawn, part)) for part in parts]), whole)
    backwards = torch.arange(59, -1, -1)
    assert torch.equal(color_jitter(images[backwards], rows(drawn, backwards)), whole[backwards])


def test_an_image_comes_out_the_same_in_channels_last_order_and_stays_in_it():
    images, drawn = noise(20, 3, 17, 15), draw_color_jitter(20, 0.8, 0.8, 0.8, 0.2, generator())
    last = color_jitter(images.to(memory_format=torch.channels_last), drawn)
    assert last.is_contiguous(memory_format=torch.channels_last)
    contiguous = color_jitter(images, drawn)
    assert contiguous.is_contiguous()
    assert torch.equal(last, contiguous)


def test_the_images_given_are_not_written_to():
    images = noise(20, 3, 8, 8)
    before = images.clone()
    color_jitter(images, draw_color_jitter(20, 0.8, 0.8, 0.8, 0.2, generator()))
    assert torch.equal(images, before)


def test_a_third_of_a_turn_of_hue_moves_each_channel_to_the_next():
    images = noise(30, 3, 8, 8).float()
    turned = shift_hue(images, torch.full((30,), 1 / 3))
    torch.testing.assert_close(turned, images.roll(1, dims=1), atol=1e-3, rtol=0)


def test_the_same_generator_draws_the_same_and_another_seed_others():
    first, again, other = (draw_color_jitter(50, 0.4, 0.4, 0.4, 0.1, generator(seed)) for seed in (3, 3, 4))
    for name in ("op", "factor"):
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize(
    ("strengths", "told"),
    [
        ((-0.1, 0, 0, 0), "brightness=-0.1: must be 0 or more"),
        ((0, float("inf"), 0, 0), "contrast=inf"),
        ((0, 0, float("nan"), 0), "saturation=nan"),
        ((0, 0, 0, 0.6), "hue=0.6: must be 0 to 0.5"),
    ],
)
def test_a_strength_out_of_range_is_refused(strengths, told):
    with pytest.raises(ValueError, match=told):
        draw_color_jitter(5, *strengths, generator())
