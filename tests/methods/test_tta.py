"""Test-time augmentation: the views, and the mean of the logits over them, against what is written out."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from conftest import generator
from torch import nn
from torchvision.transforms import v2

from iolaus.methods.tta import TTA, average_logits, views

NAMES = get_args(TTA)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def linear(size=8, seed=1):
    weight = normal(5, 3 * size * size, seed=seed)
    return lambda images: images.flatten(1) @ weight.T


def convolution(images):
    """A model that knows left from right and an edge from the middle."""
    return F.conv2d(images, normal(5, 3, 3, 3, seed=2), padding=1).relu().mean(dim=(2, 3))


MODELS = pytest.mark.parametrize("model", [linear(), convolution], ids=["linear", "convolution"])


class Recorder:
    def __init__(self):
        self.calls = []

    def __call__(self, images):
        self.calls.append(images)
        return images.mean(dim=(2, 3))


@pytest.mark.parametrize("how", NAMES)
def test_the_weights_sum_to_one(how):
    assert sum(weight for weight, _ in views(normal(2, 3, 8, 8), how)) == 1


def test_none_calls_the_model_once_on_the_images_themselves():
    images, model = normal(4, 3, 8, 8), Recorder()
    assert torch.equal(average_logits(model, images, "none"), images.mean(dim=(2, 3)))
    assert len(model.calls) == 1
    assert model.calls[0] is images


@MODELS
def test_flip_is_the_mean_over_an_image_and_its_mirror(model):
    images = normal(4, 3, 8, 8)
    mirrored = images[..., torch.arange(7, -1, -1)]
    torch.testing.assert_close(average_logits(model, images, "flip"), (model(images) + model(mirrored)) / 2)


def infer_mirror_translate(inputs, net):
    """As in airbench94.py (Keller Jordan, 2024), for any size of image."""
    size = inputs.shape[-1]

    def infer_mirror(inputs):
        return 0.5 * net(inputs) + 0.5 * net(inputs.flip(-1))

    padded = F.pad(inputs, (1, 1, 1, 1), "reflect")
    translated = [padded[:, :, 0:size, 0:size], padded[:, :, 2 : size + 2, 2 : size + 2]]
    mean = torch.stack([infer_mirror(inputs) for inputs in translated]).mean(0)
    return 0.5 * infer_mirror(inputs) + 0.5 * mean


@MODELS
def test_flip_translate_is_airbenchs(model):
    images = normal(4, 3, 8, 8)
    torch.testing.assert_close(average_logits(model, images, "flip_translate"), infer_mirror_translate(images, model))


def test_flip_translate_has_two_views_of_a_quarter_and_four_of_an_eighth():
    images = normal(4, 3, 8, 8)
    weighted = views(images, "flip_translate")
    assert [weight for weight, _ in weighted] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    _, mirror, up_left, _, down_right, _ = (view for _, view in weighted)
    assert torch.equal(mirror, images.flip(-1))
    assert torch.equal(up_left[..., 1:, 1:], images[..., :-1, :-1])
    assert torch.equal(up_left[..., 0, 0], images[..., 1, 1])
    assert torch.equal(down_right[..., :-1, :-1], images[..., 1:, 1:])
    assert torch.equal(down_right[..., -1, -1], images[..., -2, -2])


@pytest.mark.parametrize(("size", "enlarged"), [(224, 256), (32, 37), (28, 32), (7, 8), (96, 110)])
def test_resize_center_crop_is_torchvisions(size, enlarged):
    images = normal(2, 3, size, size)
    expected = v2.Compose([v2.Resize(enlarged, antialias=True), v2.CenterCrop(size)])(images)
    [(weight, view)] = views(images, "resize_center_crop")
    assert weight == 1
    torch.testing.assert_close(view, expected)


def mirror_invariant(images):
    return convolution(images) + convolution(images.flip(-1))


def test_a_model_that_a_mirror_does_not_change_has_its_own_logits_under_flip():
    images = normal(4, 3, 8, 8)
    torch.testing.assert_close(average_logits(mirror_invariant, images, "flip"), mirror_invariant(images))


@MODELS
def test_an_image_and_its_mirror_get_the_same_logits_under_flip(model):
    images = normal(4, 3, 8, 8)
    torch.testing.assert_close(average_logits(model, images.flip(-1), "flip"), average_logits(model, images, "flip"))


@pytest.mark.parametrize("how", NAMES)
def test_a_plain_image_has_its_own_logits(how):
    images = normal(4, 3, 1, 1).expand(4, 3, 8, 8).contiguous()
    model = linear()
    torch.testing.assert_close(average_logits(model, images, how), model(images))


@pytest.mark.parametrize("how", NAMES)
def test_an_image_gets_the_same_logits_in_every_batch(how):
    images = normal(6, 3, 8, 8)
    parts = [average_logits(convolution, part, how) for part in images.split(2)]
    torch.testing.assert_close(torch.cat(parts), average_logits(convolution, images, how))


@pytest.mark.parametrize("how", NAMES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_views_lie_in_memory_as_the_images_do_and_leave_them_unchanged(how, memory_format, dtype):
    images = normal(2, 3, 8, 8).to(dtype).contiguous(memory_format=memory_format)
    before = images.clone()
    for _, view in views(images, how):
        assert (view.shape, view.dtype, view.stride()) == (images.shape, dtype, images.stride())
    assert torch.equal(images, before)


@pytest.mark.parametrize("how", NAMES)
def test_logits_of_16_bits_are_averaged_in_float32(how):
    images, model = normal(4, 3, 8, 8), linear()
    mean = average_logits(lambda view: model(view).bfloat16(), images, how)
    assert mean.dtype == torch.float32
    expected = sum(weight * model(view).bfloat16().float() for weight, view in views(images, how))
    torch.testing.assert_close(mean, expected)


def test_a_model_that_writes_its_logits_over_the_last_ones_is_averaged_right():
    images, out = normal(4, 3, 8, 8), torch.empty(4, 5)
    mean = average_logits(lambda view: out.copy_(convolution(view)), images, "flip_translate")
    torch.testing.assert_close(mean, infer_mirror_translate(images, convolution))


def test_a_module_is_called_as_a_function_is():
    images, module = normal(4, 3, 8, 8), nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    torch.testing.assert_close(average_logits(module, images, "flip"), (module(images) + module(images.flip(-1))) / 2)


@pytest.mark.parametrize("how", NAMES)
def test_no_value_is_read_back_from_the_device(how):
    # a meta tensor has no values: whatever waits for one on a GPU is an error here
    images = torch.empty(4, 3, 8, 8, device="meta")
    assert average_logits(lambda view: view.mean(dim=(2, 3)), images, how).shape == (4, 3)


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=f"^tta=rotate: must be one of {', '.join(NAMES)}$"):
        views(normal(1, 3, 8, 8), "rotate")
