"""The network of airbench94: its whitening, its first weights, what of it learns, and the images that it takes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from iolaus.models.airbench import AirbenchNet, ShiftNorm

SMALL = {"widths": (8, 16)}


def natural(count, channels=3, pixels=32):
    """Images whose neighbouring pixels and channels are correlated, with mean 0 and variance 1."""
    noise = torch.randn(count, channels, pixels, pixels, generator=torch.Generator().manual_seed(0))
    images = F.avg_pool2d(noise, 3, stride=1, padding=1)
    images = images + images.mean(1, keepdim=True)
    return (images - images.mean()) / images.std()


def built(seed=0, channels=3, num_classes=10, **arguments):
    torch.manual_seed(seed)
    return AirbenchNet(num_classes, channels, **arguments)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_half_of_the_filters_whitens_patches_and_the_second_is_its_negative(channels):
    images = natural(64, channels)
    model = built(channels=channels, **SMALL)
    model.initialise(images)
    outputs = model.whiten(images).transpose(0, 1).flatten(1)
    half = 4 * channels
    moments = outputs[:half] @ outputs[:half].T / outputs.shape[1]
    assert torch.allclose(moments, torch.eye(half), atol=0.03)
    assert torch.equal(model.whiten.weight[half:], -model.whiten.weight[:half])


def test_filters_are_the_eigenvectors_from_the_largest_variance_to_the_smallest():
    images = natural(40)
    model = built(**SMALL)
    model.initialise(images)
    patches = images.double().unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    moments = patches.T @ patches / len(patches)
    filters = model.whiten.weight[:12].double().flatten(1)
    eigenvalues = torch.linalg.eigvalsh(moments).flip(0)
    lengths = 1 / filters.square().sum(1)
    assert torch.allclose(lengths, eigenvalues + 5e-4, rtol=1e-4)
    assert torch.allclose(moments @ filters.T, filters.T * eigenvalues, atol=1e-5)
    assert all(row[row.abs().argmax()] > 0 for row in filters)


def test_filters_do_not_depend_on_how_images_lie_in_memory_or_on_the_weights_before():
    images = natural(120, pixels=16)  # more than are looked at at once
    one, other = built(0, **SMALL), built(1, **SMALL)
    one.initialise(images)
    other.initialise(images.to(memory_format=torch.channels_last))
    assert torch.allclose(one.whiten.weight, other.whiten.weight, rtol=1e-5, atol=1e-6)
    other.initialise(images)
    assert torch.equal(one.whiten.weight, other.whiten.weight)


def test_images_without_variance_in_some_direction_give_finite_filters():
    model = built(**SMALL)
    model.initialise(natural(8, channels=1).expand(-1, 3, -1, -1))
    assert model.whiten.weight.isfinite().all()


def test_size_is_that_of_the_paper():
    model = AirbenchNet(num_classes=10, in_channels=3)
    convolutions = 24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256
    shifts = 2 * (64 + 256 + 256)
    trained = 24 + 9 * convolutions + shifts + 256 * 10
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained == 1_971_352
    assert sum(p.numel() for p in model.parameters()) == trained + 24 * 12 + shifts == 1_972_792


@pytest.mark.parametrize("widths", [(64, 96), (8, 8)])
def test_at_first_convolutions_pass_their_input_on(widths):
    convolutions = [m for m in built(widths=widths).groups.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 4
    for layer in convolutions:
        maps = torch.randn(2, layer.in_channels, 5, 5)
        passed = min(layer.in_channels, layer.out_channels)
        assert torch.allclose(layer(maps)[:, :passed], maps[:, :passed], atol=1e-6)
        assert layer.weight[passed:].count_nonzero() == layer.weight[passed:].numel()


def test_first_weights_are_the_papers_or_those_of_the_variant_under_muon():
    paper, variant = built(), built(bias_lr_factor=1, head_std=1.0, whitening_bias="random")
    assert not paper.whiten.bias.any()
    assert variant.whiten.bias.abs().max() <= 12**-0.5  # torch's: uniform up to 1 / √(inputs of a filter)
    assert variant.whiten.bias.unique().numel() == 24
    assert variant.head.weight.std().item() == pytest.approx(1)
    ratio = variant.head.weight / paper.head.weight
    assert torch.allclose(ratio, ratio.mean())
    assert variant.head.weight.requires_grad
    for (name, p), (_, q) in zip(paper.named_parameters(), variant.named_parameters(), strict=True):
        assert torch.equal(p, q) == (name not in ("whiten.bias", "head.weight"))


def test_all_but_whitening_and_scales_learns():
    model = built(**SMALL)
    model.initialise(natural(8))
    F.cross_entropy(model(natural(8)), torch.arange(8)).backward()
    fixed = {name for name, p in model.named_parameters() if p.grad is None}
    scales = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, ShiftNorm)}
    assert fixed == {"whiten.weight", *scales}
    assert len(scales) == 4
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_a_shift_learns_as_many_times_faster_as_asked_and_decays_like_the_rest():
    moved = []
    for factor in (1.0, 64.0):
        norm = ShiftNorm(4, momentum=0.4, eps=1e-12, lr_factor=factor)
        norm.bias.data.fill_(1 / norm.scale)  # a shift of 1
        optimizer = torch.optim.SGD([norm.bias], lr=0.001, weight_decay=0.1)
        (norm(torch.ones(2, 4, 3, 3)) * torch.arange(4.0).view(4, 1, 1)).mean().backward()
        optimizer.step()
        moved.append(norm.scale * norm.bias.detach() - 1)
    decay = -0.001 * 0.1
    assert torch.allclose(moved[1] - decay, 64 * (moved[0] - decay), atol=1e-5)


def test_shift_norm_with_factor_one_is_batch_norm():
    ours, torchs = ShiftNorm(4, momentum=0.4, eps=1e-5, lr_factor=1.0), nn.BatchNorm2d(4, momentum=0.4)
    maps = torch.randn(6, 4, 5, 5)
    assert torch.equal(ours(maps), torchs(maps))
    assert torch.equal(ours.running_var, torchs.running_var)
    assert torch.equal(ours.eval()(maps), torchs.eval()(maps))


@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (2, 1, 16, 16), (2, 4, 28, 40), (2, 3, 32, 32), (2, 3, 96, 96)])
@pytest.mark.parametrize("num_classes", [1, 7])
def test_images_of_any_size_train(shape, num_classes):
    model = built(channels=shape[1], num_classes=num_classes, widths=(4, 8, 16))
    logits = model(torch.randn(shape))
    logits.sum().backward()
    assert logits.shape == (2, num_classes)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_the_last_pool_is_the_papers_for_32_pixels():
    maps = built(widths=(4, 8, 16)).groups(torch.randn(2, 24, 31, 31))
    assert maps.shape == (2, 16, 3, 3)
    assert torch.equal(maps.amax(dim=(2, 3)), nn.MaxPool2d(3)(maps).flatten(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_and_channels_last_give_nearly_the_same(dtype):
    model = built(**SMALL).eval()
    images = natural(8)
    model.initialise(images)
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    assert torch.allclose(model(images.to(memory_format=torch.channels_last)), expected, atol=1e-5)
    with torch.autocast("cpu", dtype):
        assert torch.allclose(model(images).float(), expected, atol=0.05)
        F.cross_entropy(model.train()(images), torch.arange(8)).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_a_state_dict_carries_everything():
    images = natural(8)
    one, other = built(0, **SMALL), built(1, **SMALL)
    one.initialise(images)
    one(images)  # moves the running statistics
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(images), other.eval()(images))


def test_one_seed_gives_one_network():
    images = natural(8)
    one, other, another = built(0, **SMALL), built(0, **SMALL), built(1, **SMALL)
    for model in (one, other, another):
        model.initialise(images)
    assert torch.equal(one(images), other(images))
    assert not torch.equal(one(images), another(images))
    assert not torch.equal(one.train()(images), one.eval()(images))
