"""The recipe cifar10_fast takes the steps of airbench94_muon: here by its formulas, on the same images and weights."""

import pytest
import torch
import torch.nn.functional as F
from conftest import checked_config

from iolaus.config.build import build_parts
from iolaus.data.epoch import EpochPlan
from iolaus.loop import train_step
from iolaus.methods import muon

BATCH, EPOCHS, OF_WHITENING = 2000, 8, 3  # an epoch has one step here
# Its network, narrow, on 2,000 images of 16 pixels.
SMALL = (
    "experiment=cifar10_fast", "dataset=synthetic", "dataset.size=16", "dataset.mirror=true",
    f"dataset.train_count={BATCH}", "dataset.test_count=20", "model.widths=[8,8,16]",
    "trainer.device=cpu", "trainer.precision=fp32", "tracker=none",
)  # fmt: skip
DECAY = 2e-6 * BATCH
RATES = {"whiten": 0.053, "norm": 0.053, "head": 0.67}  # of the summed loss


def reference_images(pixels, statistics, coins, corners, epoch):
    """Normalised, mirrored by a coin, reflected at the border, cut, and all mirrored in every other epoch."""
    mean, std = statistics
    images = (pixels / 255 - mean) / std
    images = torch.where(coins.view(-1, 1, 1, 1), images.flip(3), images)
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    size = images.shape[-1]
    cut = torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(padded, corners, strict=True)])
    return cut.flip(3) if epoch % 2 else cut


def reference_logits(weights, images):
    def norm(maps, shift):
        mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True)
        return (maps - mean) / (variance + 1e-12).sqrt() + shift.view(1, -1, 1, 1)

    maps = F.gelu(F.conv2d(images, weights["whitening"], weights["whiten"]))
    for block in range(3):
        maps = F.max_pool2d(F.conv2d(maps, weights[f"filter {2 * block}"], padding=1), 2)
        maps = F.gelu(norm(maps, weights[f"norm {2 * block}"]))
        maps = F.conv2d(maps, weights[f"filter {2 * block + 1}"], padding=1)
        maps = F.gelu(norm(maps, weights[f"norm {2 * block + 1}"]))
    return maps.amax((2, 3)) @ weights["head"].T / 256


def orthogonal(gradient):
    x = gradient.flatten(1)
    x = x / x.norm()
    for _ in range(3):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.view_as(gradient)


def reference_step(weights, momenta, images, targets, step):
    """One step of both optimizers on the loss summed over the batch; `weights` and `momenta` are changed."""
    for name, w in weights.items():
        w.requires_grad_(name != "whitening")
    logits = reference_logits(weights, images)
    smooth = 0.8 * F.one_hot(targets, 10) + 0.2 / 10
    loss = -(smooth * logits.log_softmax(1)).sum()
    names = [name for name in weights if name != "whitening"]
    gradients = dict(zip(names, torch.autograd.grad(loss, [weights[name] for name in names]), strict=True))
    for name, gradient in gradients.items():
        w, kind = weights[name].detach(), name.split()[0]
        if kind == "filter":
            momenta[name] = 0.6 * momenta[name] + gradient
            w = w * len(w) ** 0.5 / w.norm()
            w = w - 0.24 * (1 - step / EPOCHS) * orthogonal(gradient + 0.6 * momenta[name])
        elif kind != "whiten" or step < OF_WHITENING:
            gradient = gradient + DECAY / RATES[kind] * w
            momenta[name] = 0.85 * momenta[name] + gradient
            left = 1 - step / (OF_WHITENING if kind == "whiten" else EPOCHS)
            w = w - RATES[kind] * left * (gradient + 0.85 * momenta[name])
        weights[name] = w
    return loss.item() / len(targets)


def weights_of(model):
    """The weights of AirbenchNet in double precision, by what they are: filters and norms from first to last."""
    convolutions = [m.weight for m in model.groups.modules() if isinstance(m, torch.nn.Conv2d)]
    shifts = [m.bias for m in model.groups.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    named = {"whitening": model.whiten.weight, "whiten": model.whiten.bias, "head": model.head.weight}
    named |= {f"filter {k}": w for k, w in enumerate(convolutions)} | {f"norm {k}": w for k, w in enumerate(shifts)}
    return {name: w.detach().double().clone() for name, w in named.items()}


def test_five_steps_of_the_recipe_are_those_of_the_reference(monkeypatch):
    monkeypatch.setattr(muon, "iteration_dtype", lambda device: torch.float64)
    parts = build_parts(checked_config(*SMALL))
    learner, data, settings = parts.learner, parts.data.train, parts.data.train.settings
    pixels, targets, count = data.take(torch.arange(len(data))), data.targets, len(data)
    momenta = {name: torch.zeros_like(w) for name, w in weights_of(learner.model).items()}
    assert learner.model.head.weight.std().item() == pytest.approx(1)

    first = EpochPlan(settings, count, 0, train=True)
    coins = torch.zeros(count, dtype=torch.bool)
    coins[first.order] = first.drawn["crop"][:, 2].bool()
    assert 0.4 < coins.double().mean() < 0.6

    learner.model.double().train()  # in float32 two values that are nearly equal are pooled otherwise, by processor
    for step in range(5):
        plan = EpochPlan(settings, count, step, train=True)
        corners = plan.drawn["crop"][:, :2]
        if step % 2:  # Iolaus cuts the window from the mirrored image, the reference mirrors the window
            corners = torch.stack([corners[:, 0], 4 - corners[:, 1]], dim=1)
        ((images, its),) = data.batches(BATCH, step, train=True)
        order = plan.order
        expected = reference_images(pixels[order].double(), settings.statistics, coins[order], corners.tolist(), step)
        torch.testing.assert_close(images.double(), expected, rtol=0, atol=1e-5)
        assert torch.equal(its, targets[order])

        weights = weights_of(learner.model)  # each step from the same weights
        before = dict(weights)
        learner.schedule.before_step(step)
        loss, _, _ = train_step(learner, expected, its, step, want_norm=False)
        assert loss.item() == pytest.approx(reference_step(weights, momenta, expected, its, step), rel=1e-5)
        after = weights_of(learner.model)
        for name, w in weights.items():
            difference, moved = (after[name] - w).norm(), (w - before[name]).norm()
            assert difference <= 3e-3 * moved, (step, name)
            still = name == "whitening" or (name == "whiten" and step >= OF_WHITENING)
            assert (moved == 0) == still
