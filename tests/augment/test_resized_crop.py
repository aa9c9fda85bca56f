"""RandomResizedCrop: which boxes are drawn, and what becomes of an image, against torchvision."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import generator
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from iolaus.augment.resized_crop import boxes, by_products, draw_boxes, one_by_one, resized_crop, triangle_weights

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
WAYS = pytest.mark.parametrize("way", [one_by_one, by_products])


def pixels(*shape, seed=0):
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator(seed))


def drawn_boxes(count, height, width, scale=SCALE, ratio=RATIO, seed=0):
    return boxes(draw_boxes(count, scale, ratio, generator(seed)), height, width, ratio)


def by_torchvision(images, cut, size):
    pairs = zip(images, cut.tolist(), strict=True)
    return torch.stack([reference.resized_crop(image, *box, [size, size], antialias=True) for image, box in pairs])


def levels(a, b):
    """The largest difference of two uint8 tensors."""
    return (a.int() - b.int()).abs().max().item()


@WAYS
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("height", "width", "size"), [(32, 32, 32), (24, 40, 24), (40, 24, 9), (9, 12, 31), (150, 200, 64), (1, 1, 4)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_to_one_level_what_torchvision_makes_of_it(way, memory_format, height, width, size, channels):
    images = pixels(12, channels, height, width).contiguous(memory_format=memory_format)
    cut = drawn_boxes(12, height, width)
    out = way(images, cut, size)
    assert (out.shape, out.dtype) == ((12, channels, size, size), torch.uint8)
    assert levels(out, by_torchvision(images, cut, size)) <= 1


@WAYS
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_order_is_that_of_the_images(way, memory_format):
    images = pixels(9, 3, 16, 20).contiguous(memory_format=memory_format)
    cut = torch.cat([drawn_boxes(8, 16, 20), torch.tensor([[3, 4, 1, 1]])])
    assert way(images, cut, 12).is_contiguous(memory_format=memory_format)


@WAYS
@pytest.mark.parametrize("size", [5, 16, 40])
def test_boxes_of_the_whole_image_of_a_line_and_of_a_pixel_are_as_torchvision_has_them(way, size):
    images = pixels(8, 3, 16, 20)
    cut = [(0, 0, 16, 20), (0, 0, 1, 20), (15, 0, 1, 20), (0, 19, 16, 1), (0, 0, 1, 1), (15, 19, 1, 1), (7, 3, 1, 1)]
    cut = torch.tensor([*cut, (8, 12, 8, 8)])
    out = way(images, cut, size)
    assert levels(out, by_torchvision(images, cut, size)) <= 1
    pixel = images[6, :, 7, 3]
    assert torch.equal(out[6], pixel[:, None, None].expand(3, size, size))


@WAYS
def test_the_whole_image_at_its_own_size_is_the_image(way):
    images = pixels(4, 3, 16, 16)
    assert torch.equal(way(images, torch.tensor([[0, 0, 16, 16]] * 4), 16), images)


@WAYS
def test_white_stays_white_and_black_stays_black(way):
    cut = drawn_boxes(40, 33, 47)
    for level in (0, 255):
        assert way(torch.full((40, 1, 33, 47), level, dtype=torch.uint8), cut, 20).unique().tolist() == [level]


@pytest.mark.parametrize(("start", "length", "size"), [(0, 20, 7), (3, 11, 20), (4, 5, 5), (19, 1, 6), (2, 17, 1)])
def test_the_weights_are_those_of_interpolate_of_the_part(start, length, size):
    part = torch.eye(20)[start : start + length]
    expected = F.interpolate(part[None, None], (size, 20), mode="bilinear", antialias=True)[0]
    weights = triangle_weights(torch.tensor([start]), torch.tensor([length]), size, extent=20)
    torch.testing.assert_close(weights, expected, rtol=0, atol=2e-6)


@WAYS
def test_pixels_outside_of_its_box_have_no_part_in_an_image(way):
    images, cut = pixels(10, 3, 32, 32), drawn_boxes(10, 32, 32)
    inside = torch.zeros_like(images, dtype=torch.bool)
    for mask, (top, left, height, width) in zip(inside, cut.tolist(), strict=True):
        mask[:, top : top + height, left : left + width] = True
    other = torch.where(inside, images, pixels(10, 3, 32, 32, seed=1))
    assert torch.equal(way(other, cut, 16), way(images, cut, 16))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_an_image_comes_out_the_same_in_every_batch(size):
    images, cut = pixels(24, 3, 32, 32), drawn_boxes(24, 32, 32)
    parts = [resized_crop(*part, 32) for part in zip(images.split(size), cut.split(size), strict=True)]
    assert torch.equal(torch.cat(parts), resized_crop(images, cut, 32))


def test_off_the_cpu_no_value_is_read_back():
    # a meta tensor has no values: whatever waits for one on a GPU is an error here
    images, drawn = (x.to("meta") for x in (pixels(8, 3, 32, 40), draw_boxes(8, SCALE, RATIO, generator())))
    assert resized_crop(images, boxes(drawn, 32, 40, RATIO), 16).shape == (8, 3, 16, 16)


def by_the_book(row, height, width, ratio):
    """A box as torchvision's loop finds it, with the numbers of one row of `draw_boxes`."""
    *tries, down, across = row
    for fraction, log_aspect in zip(tries[:10], tries[10:], strict=True):
        area, aspect = height * width * fraction, math.exp(log_aspect)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return [int(down * (height - h + 1)), int(across * (width - w + 1)), h, w]
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return [(height - h) // 2, (width - w) // 2, h, w]


SHAPES = [(32, 32), (375, 500), (28, 90), (400, 30), (1, 9), (3, 2)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("scale", [SCALE, (0.0, 0.01)])
def test_the_first_try_that_fits_is_taken_and_else_the_centre(height, width, scale):
    drawn = draw_boxes(2000, scale, RATIO, generator())
    expected = [by_the_book(row, height, width, RATIO) for row in drawn.tolist()]
    assert boxes(drawn, height, width, RATIO).tolist() == expected


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [(224, 224, SCALE, RATIO), (375, 500, SCALE, RATIO), (40, 120, (0.35, 1.0), RATIO), (32, 32, (0.25, 0.5), (1, 3))],
)
def test_boxes_are_distributed_as_torchvisions(height, width, scale, ratio):
    image = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(2500)]
    there = torch.tensor(expected, dtype=torch.float64)
    here = drawn_boxes(40_000, height, width, scale, ratio).double()
    for of in (
        lambda b: b[:, 2] * b[:, 3] / (height * width),
        lambda b: (b[:, 3] / b[:, 2]).log(),
        lambda b: (b[:, 3] / b[:, 2]).log().square(),
        lambda b: b[:, 0],
        lambda b: b[:, 1],
        lambda b: b[:, 0] * b[:, 1],
    ):
        a, b = of(here), of(there)
        assert abs(a.mean() - b.mean()) <= 4 * (a.var() / len(a) + b.var() / len(b)).sqrt()


@pytest.mark.parametrize(("height", "width", "central"), [(20, 400, (0, 186, 20, 27)), (400, 20, (186, 0, 27, 20))])
def test_a_very_long_image_gives_its_centre(height, width, central):
    # no area of half the image fits into it with an aspect of 4:3 or less
    cut = drawn_boxes(500, height, width, scale=(0.5, 1.0))
    assert cut.unique(dim=0).tolist() == [list(central)]


def test_an_image_within_the_ratios_that_no_try_fits_is_taken_whole():
    drawn = draw_boxes(1, (1.0, 1.0), (1.3, 1.3), generator())
    assert boxes(drawn, 30, 30, (0.75, 4 / 3)).tolist() == [[0, 0, 30, 30]]


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("scale", [SCALE, (0.0, 0.01), (1.0, 1.0)])
def test_a_box_always_lies_within_its_image_and_has_pixels(height, width, scale):
    drawn = draw_boxes(3000, scale, RATIO, generator())
    drawn[::3, -2:] = 1 - 2**-24  # the largest number that rand() draws
    top, left, tall, wide = boxes(drawn, height, width, RATIO).unbind(dim=1)
    assert min(top.min(), left.min()) >= 0
    assert min(tall.min(), wide.min()) >= 1
    assert (top + tall).max() <= height
    assert (left + wide).max() <= width


def test_a_row_gives_its_box_whatever_other_rows_there_are():
    drawn = draw_boxes(30, SCALE, RATIO, generator())
    one = torch.cat([boxes(row, 60, 80, RATIO) for row in drawn.split(1)])
    assert torch.equal(one, boxes(drawn, 60, 80, RATIO))


def test_draws_are_22_numbers_an_image_within_their_ranges():
    drawn = draw_boxes(5000, (0.2, 0.9), RATIO, generator())
    assert (drawn.shape, drawn.dtype) == ((5000, 22), torch.float32)
    for numbers, low, high in (
        (drawn[:, :10], 0.2, 0.9), (drawn[:, 10:20], math.log(3 / 4), math.log(4 / 3)), (drawn[:, 20:], 0, 1),
    ):  # fmt: skip
        assert low - 1e-6 <= numbers.min() < low + 0.001
        assert high - 0.001 < numbers.max() <= high + 1e-6


@pytest.mark.parametrize(
    ("scale", "ratio", "told"),
    [((0.5, 0.1), RATIO, "scale"), ((0.1, 1.1), RATIO, "scale"), (SCALE, (0, 1), "ratio"), (SCALE, (2, 1), "ratio")],
)
def test_a_range_that_is_none_is_refused(scale, ratio, told):
    with pytest.raises(ValueError, match=f"^{told}="):
        draw_boxes(1, scale, ratio, generator())
