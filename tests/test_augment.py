"""Crop and flip: what is drawn for an image, and what a batch of draws does."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from iolaus.augment import Basic, crop_and_flip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("shape", "padding"), [((3, 32, 32), 4), ((1, 8, 8), 1), ((3, 6, 9), 2), ((1, 5, 5), 0)])
def test_crop_and_flip_does_what_torchvision_does_image_by_image(dtype, shape, padding):
    images = torch.randint(256, (64, *shape), generator=generator()).to(dtype)
    corners = torch.randint(2 * padding + 1, (64, 2), generator=generator(1))
    drawn = torch.cat([corners, torch.randint(2, (64, 1), generator=generator(2))], dim=1)

    moved = crop_and_flip(images, drawn, padding)

    assert moved.dtype == dtype
    for image, (top, left, flip), result in zip(images, drawn.tolist(), moved, strict=True):
        expected = reference.crop(reference.pad(image, [padding]), top, left, *shape[1:])
        assert torch.equal(result, reference.horizontal_flip(expected) if flip else expected)


def test_the_images_lie_in_channels_last_order():
    moved = crop_and_flip(torch.zeros(2, 3, 8, 8), torch.tensor([[0, 0, 0], [2, 1, 1]]), padding=1)
    assert moved.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("image_size", "padding"), [(32, 4), (28, 3), (8, 1), (4, 1), (224, 28)])
def test_the_padding_is_an_eighth_of_the_image_and_all_its_corners_are_drawn(image_size, padding):
    corners = Basic().draw(10_000, image_size, generator())[:, :2]
    for corner in corners.unbind(dim=1):
        assert corner.unique().tolist() == list(range(2 * padding + 1))


def test_a_given_padding_replaces_the_eighth():
    drawn = Basic(crop_padding=6).draw(10_000, 32, generator())
    assert drawn[:, :2].unique().tolist() == list(range(13))
    assert not Basic(crop_padding=0).draw(100, 32, generator())[:, :2].any()


@pytest.mark.parametrize("flip", [0.0, 0.2, 0.5, 1.0])
def test_the_flip_is_drawn_with_its_probability(flip):
    flips = Basic(flip=flip).draw(20_000, 32, generator())[:, 2]
    assert set(flips.tolist()) <= {0, 1}
    spread = (flip * (1 - flip) / 20_000) ** 0.5
    assert abs(flips.double().mean().item() - flip) <= 4 * spread


def test_top_left_and_flip_are_drawn_independently():
    correlation = torch.corrcoef(Basic().draw(20_000, 32, generator()).double().T)
    assert (correlation - torch.eye(3)).abs().max() < 0.03


def test_an_image_that_must_not_be_mirrored_never_is():
    assert not Basic(flip=1.0, mirror=False).draw(1000, 8, generator())[:, 2].any()


def test_images_do_not_depend_on_the_batch_size():
    images = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8, generator=generator())
    basic = Basic()
    drawn = basic.draw(40, 16, generator(1))
    whole = basic.apply(images, drawn)
    for size in (5, 8):
        parts = [basic.apply(*part) for part in zip(images.split(size), drawn.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), whole)


def test_the_same_generator_draws_the_same_and_another_seed_others():
    first, again, other = (Basic().draw(50, 32, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"crop_padding": -1}, "crop_padding=-1"), ({"flip": 1.5}, "flip=1.5"), ({"flip": -0.1}, "flip=-0.1")],
)
def test_a_value_out_of_range_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        Basic(**arguments)
