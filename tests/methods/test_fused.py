"""Optimizers get their fused form by themselves, which is the same method."""

import copy

import pytest
import torch
from torch import nn

from iolaus.methods.fused import fused_by_default, lay_out_moments

FUSED = {"fused": True}


class Own(torch.optim.SGD):
    """A person's own optimizer, without a fused form."""

    def __init__(self, params, lr: float = 0.1) -> None:
        super().__init__(params, lr)


class OwnFused(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1, fused: bool | None = None) -> None:
        super().__init__(params, lr, fused=fused)


@pytest.mark.parametrize(
    ("optimizer_class", "added"),
    [
        (torch.optim.SGD, FUSED),
        (torch.optim.Adam, FUSED),
        (torch.optim.AdamW, FUSED),
        (OwnFused, FUSED),
        (torch.optim.RMSprop, {}),
        (Own, {}),
    ],
)
def test_an_optimizer_is_fused_where_it_can_be(optimizer_class, added):
    assert fused_by_default(optimizer_class, {"lr": 0.1, "foreach": None}) == added
    optimizer_class(nn.Linear(2, 2).parameters(), lr=0.1, **added)


@pytest.mark.parametrize(
    "chosen", [{"fused": False}, {"fused": True}, {"foreach": True}, {"capturable": True}, {"differentiable": True}]
)
def test_a_form_that_the_config_chose_is_kept(chosen):
    assert fused_by_default(torch.optim.AdamW, {"fused": None, **chosen}) == {}


@pytest.mark.parametrize(
    ("optimizer_class", "arguments"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
        (torch.optim.AdamW, {"weight_decay": 0.01}),
        (torch.optim.Adam, {"amsgrad": True}),
    ],
)
def test_the_fused_form_takes_the_same_steps_as_the_plain_one(optimizer_class, arguments):
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    models = [model, copy.deepcopy(model)]
    start = model[0].weight.detach().clone()
    images, targets = torch.randn(20, 8, 6), torch.randn(20, 8, 3)
    for model, form in zip(models, ({"foreach": False, "fused": False}, FUSED), strict=True):
        optimizer = optimizer_class(model.parameters(), lr=0.01, **arguments, **form)
        for x, y in zip(images, targets, strict=True):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
    for plain, fused in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-6)
    assert (models[0][0].weight - start).abs().max() > 0.01


def test_only_parameters_without_gaps_are_fused_which_reads_memory_whatever_the_strides():
    dense = nn.Parameter(torch.zeros(4, 6, 3, 3).to(memory_format=torch.channels_last))
    sliced = nn.Parameter(torch.zeros(4, 8)[:, :5])
    assert fused_by_default(torch.optim.SGD, {}, [dense, dense.detach().transpose(0, 1)]) == FUSED
    assert fused_by_default(torch.optim.SGD, {}, [dense, sliced]) == {}


def test_moments_of_another_memory_order_go_on_as_those_of_their_own():
    """Saved from contiguous weights, loaded for weights in channels-last order."""
    torch.manual_seed(0)
    models = [nn.Conv2d(3, 8, 3) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].to(memory_format=torch.channels_last)
    images = torch.randn(6, 4, 3, 8, 8)

    def train(model, optimizer, batches):
        for batch in batches:
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

    first, second = (torch.optim.AdamW(model.parameters(), lr=0.1, fused=True) for model in models)
    train(models[0], first, images[:3])
    models[1].load_state_dict(models[0].state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    lay_out_moments(second)
    assert all(second.state[p]["exp_avg"].stride() == p.stride() for p in models[1].parameters())
    train(models[0], first, images[3:])
    train(models[1], second, images[3:])
    torch.testing.assert_close(models[1].weight, models[0].weight, rtol=1e-4, atol=1e-5)
