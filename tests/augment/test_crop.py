"""Crop and flip of a batch by one copy of rows, against torchvision image by image."""

import numpy as np
import pytest
import torch
from conftest import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference

from iolaus.augment.crop import alternate_flips, crop_and_flip, pad
from iolaus.images import is_channels_last


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("shape", "padding", "size"),
    [((3, 32, 32), 4, 32), ((1, 8, 8), 1, 8), ((3, 9, 6), 2, 5), ((1, 5, 5), 0, 5), ((3, 16, 16), 0, 11),
     ((3, 4, 4), 3, 1)],
)  # fmt: skip
def test_crop_and_flip_does_what_torchvision_does_image_by_image(dtype, shape, padding, size, memory_format):
    images = torch.randint(256, (64, *shape), generator=generator()).to(dtype).contiguous(memory_format=memory_format)
    top = torch.randint(shape[1] + 2 * padding - size + 1, (64,), generator=generator(1))
    left = torch.randint(shape[2] + 2 * padding - size + 1, (64,), generator=generator(2))
    drawn = torch.stack([top, left, torch.randint(2, (64,), generator=generator(3))], dim=1)

    moved = crop_and_flip(images, drawn, padding, size)

    assert moved.dtype == dtype
    for image, (y, x, flip), result in zip(images, drawn.tolist(), moved, strict=True):
        padded = reference.pad(image, [padding])
        padded = reference.horizontal_flip(padded) if flip else padded
        assert torch.equal(result, reference.crop(padded, y, x, size, size))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width", "padding"), [(32, 32, 2), (8, 8, 1), (5, 9, 4), (4, 4, 3), (3, 3, 0)])
def test_reflection_is_torchs_in_any_dtype(height, width, padding, memory_format):
    images = torch.randint(256, (6, 3, height, width), generator=generator()).contiguous(memory_format=memory_format)
    expected = torch.nn.functional.pad(images.float(), (padding,) * 4, mode="reflect")
    for dtype in (torch.uint8, torch.float32):
        padded = pad(images.to(dtype), padding, "reflect")
        assert padded.dtype == dtype
        assert torch.equal(padded.float(), expected)


def test_a_window_of_a_reflected_image_is_cut_as_one_of_an_image_with_zeros():
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8, generator=generator())
    drawn = torch.tensor([[0, 0, 0], [4, 4, 1], [0, 4, 1], [2, 2, 0], [1, 3, 1]])
    mirrored = torch.nn.functional.pad(images.float(), (2,) * 4, mode="reflect").flip(3)
    moved = crop_and_flip(images, drawn, 2, 8, "reflect")
    for k, (top, left, flip) in enumerate(drawn.tolist()):
        padded = mirrored[k] if flip else mirrored[k].flip(2)
        assert torch.equal(moved[k].float(), padded[:, top : top + 8, left : left + 8])


def test_alternate_flips_are_a_coin_at_first_and_turn_with_each_epoch():
    at = [alternate_flips(4000, 0.3, epoch, generator(7)) for epoch in range(4)]
    assert at[0].float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(at[1], ~at[0])
    assert torch.equal(at[2], at[0])
    assert torch.equal(at[3], at[1])


@given(
    st.data(),
    st.sampled_from([1, 3]),
    st.booleans(),
    *[st.integers(low, high) for low, high in ((1, 9), (1, 9), (0, 3))],
)
@settings(max_examples=50, deadline=None, database=None)
def test_every_window_is_the_one_cut_by_slices(data, channels, last, height, width, padding):
    size = data.draw(st.integers(1, min(height, width) + 2 * padding))
    tops, lefts = (st.integers(0, length + 2 * padding - size) for length in (height, width))
    drawn = data.draw(st.lists(st.tuples(tops, lefts, st.integers(0, 1)), min_size=1, max_size=5))
    images = torch.arange(len(drawn) * channels * height * width).view(len(drawn), channels, height, width)
    images = images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    moved = crop_and_flip(images, torch.tensor(drawn), padding, size)

    for image, (top, left, flip), result in zip(images.numpy(), drawn, moved.numpy(), strict=True):
        padded = np.pad(image, [(0, 0), (padding, padding), (padding, padding)])
        padded = padded[..., ::-1] if flip else padded
        assert np.array_equal(result, padded[:, top : top + size, left : left + size])


@pytest.mark.parametrize("last", [False, True])
def test_the_memory_format_stays(last):
    images = torch.zeros(2, 3, 8, 8).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    moved = crop_and_flip(images, torch.tensor([[0, 0, 0], [2, 1, 1]]), padding=1, size=8)
    assert is_channels_last(moved) == is_channels_last(images) == last


def test_images_are_not_changed():
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8, generator=generator())
    before = images.clone()
    crop_and_flip(images, torch.ones(4, 3, dtype=torch.int64), 1, 8)
    assert torch.equal(images, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_gpu_gives_what_the_cpu_gives(memory_format):
    images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8, generator=generator())
    images = images.contiguous(memory_format=memory_format)
    drawn = torch.cat([torch.randint(9, (64, 2)), torch.randint(2, (64, 1))], dim=1)
    on_gpu = crop_and_flip(images.cuda(), drawn.cuda(), 4, 32)
    assert torch.equal(on_gpu.cpu(), crop_and_flip(images, drawn, 4, 32))
