"""RandomErasing: which rectangles are drawn, and what is left of the images."""

import math

import pytest
import torch
from conftest import generator
from torchvision.transforms import RandomErasing

from iolaus.augment.erasing import draw_erasing, erase
from iolaus.augment.resized_crop import draw_boxes

SCALE, RATIO = (0.02, 0.33), (0.3, 3.3)


def by_slices(images, drawn):
    images = images.clone()
    for image, (top, left, height, width) in zip(images, drawn.tolist(), strict=True):
        image[:, top : top + height, left : left + width] = 0
    return images


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (3, 9), (4, 1)])
def test_the_rectangle_of_each_image_is_zero_and_the_rest_untouched(dtype, memory_format, channels, size):
    images = torch.randn(50, channels, size, size, generator=generator()).to(dtype)
    images = images.contiguous(memory_format=memory_format)
    drawn = draw_erasing(50, size, 0.7, SCALE, RATIO, generator())
    expected, stride = by_slices(images, drawn), images.stride()
    erased = erase(images, drawn)
    assert erased is images
    assert erased.stride() == stride
    assert torch.equal(erased, expected)


def test_images_that_lie_in_no_usual_order_are_erased_too():
    images = torch.randn(3, 12, 20, 20, generator=generator()).transpose(0, 1)[..., 4:, :16]
    drawn = draw_erasing(12, 16, 1.0, SCALE, RATIO, generator())
    expected = by_slices(images, drawn)
    assert torch.equal(erase(images, drawn), expected)


def test_rectangles_may_touch_each_edge_and_fill_the_image():
    drawn = torch.tensor([[0, 0, 2, 3], [6, 5, 2, 3], [0, 0, 8, 8], [0, 3, 8, 1], [4, 4, 0, 3], [4, 4, 3, 0]]).short()
    images = torch.ones(6, 3, 8, 8)
    assert erase(images, drawn)[:, 0].sum(dim=(1, 2)).tolist() == [58, 58, 0, 56, 64, 64]


def test_no_value_is_read_back_from_the_device():
    # a meta tensor has no values: whatever waits for one on a GPU is an error here
    images, drawn = torch.empty(8, 3, 32, 32, device="meta"), torch.empty(8, 4, dtype=torch.int16, device="meta")
    for memory_format in (torch.contiguous_format, torch.channels_last):
        assert erase(images.contiguous(memory_format=memory_format), drawn).shape == images.shape


def by_the_book(row, size):
    """A rectangle as torchvision's loop finds it, with the numbers of one row of `draw_boxes`."""
    *tries, down, across = row
    for fraction, log_aspect in zip(tries[:10], tries[10:], strict=True):
        area, aspect = size * size * fraction, math.exp(log_aspect)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < size and w < size:
            return [int(down * (size - h + 1)), int(across * (size - w + 1)), h, w]
    return [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("size", "scale", "ratio"), [(32, SCALE, RATIO), (224, SCALE, RATIO), (16, (0.8, 1.0), RATIO), (4, SCALE, (9, 20))]
)
def test_the_first_try_smaller_than_the_image_is_taken_and_else_none(size, scale, ratio):
    expected = [by_the_book(row, size) for row in draw_boxes(2000, scale, ratio, generator()).tolist()]
    assert draw_erasing(2000, size, 1.0, scale, ratio, generator()).tolist() == expected


@pytest.mark.parametrize(
    ("size", "scale", "ratio"), [(32, SCALE, RATIO), (224, SCALE, RATIO), (32, (0.7, 1.0), (0.5, 2.0))]
)
def test_rectangles_are_distributed_as_torchvisions(size, scale, ratio):
    image = torch.empty(1, size, size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = [RandomErasing.get_params(image, scale, ratio, [0.0])[:4] for _ in range(2500)]
    there = torch.tensor(found, dtype=torch.float64)
    there[there[:, 2] == size] = 0  # its way to say that nothing is erased
    here = draw_erasing(40_000, size, 1.0, scale, ratio, generator()).double()
    for of in (
        lambda d: (d[:, 2] > 0).double(),
        lambda d: d[:, 2] * d[:, 3] / size**2,
        lambda d: ((d[:, 2] + 1) / (d[:, 3] + 1)).log(),
        lambda d: ((d[:, 2] + 1) / (d[:, 3] + 1)).log().square(),
        lambda d: d[:, 0],
        lambda d: d[:, 1],
        lambda d: d[:, 0] * d[:, 1],
    ):
        a, b = of(here), of(there)
        assert abs(a.mean() - b.mean()) <= 4 * (a.var() / len(a) + b.var() / len(b)).sqrt()


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_an_image_is_erased_with_the_probability(probability):
    erased = (draw_erasing(20_000, 32, probability, SCALE, RATIO, generator())[:, 2] > 0).double().mean().item()
    assert abs(erased - probability) <= 4 * (probability * (1 - probability) / 20_000) ** 0.5


def test_the_probability_does_not_change_the_rectangles():
    always, half = (draw_erasing(1000, 32, p, SCALE, RATIO, generator()) for p in (1.0, 0.5))
    erased = half[:, 2] > 0
    assert 400 < erased.sum() < 600
    assert torch.equal(half[erased], always[erased])


def test_a_draw_is_four_small_integers_an_image_within_the_image():
    drawn = draw_erasing(5000, 32, 1.0, SCALE, RATIO, generator())
    assert (drawn.shape, drawn.dtype) == ((5000, 4), torch.int16)
    assert drawn.min() == 0
    assert (drawn[:, :2] + drawn[:, 2:]).max() == 32


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((1.5, SCALE, RATIO), "probability"), ((0.5, (0.3, 0.1), RATIO), "scale"), ((0.5, SCALE, (-1, 1)), "ratio")],
)
def test_a_value_out_of_range_is_refused(arguments, told):
    with pytest.raises(ValueError, match=f"^{told}="):
        draw_erasing(1, 8, *arguments, generator())
