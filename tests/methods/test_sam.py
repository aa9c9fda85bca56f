"""Sharpness-aware minimisation equals its formula, and leaves behind nothing but its gradient."""

import copy
import math

import pytest
import torch
from test_loop import make_data, make_learner, needs_cuda, run
from torch import nn
from torch.nn import functional as F

from iolaus import loop
from iolaus.methods.sam import perturb_weights
from iolaus.methods.stopping import NonFiniteLoss

RHO = {False: 0.05, True: 0.5}  # SAM's and ASAM's, by their papers


def small_net(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    parts = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    return nn.Sequential(*parts).to(dtype)


def by_hand(model: nn.Module, images: torch.Tensor, targets: torch.Tensor, adaptive: bool) -> list[torch.Tensor]:
    """The gradient of equation 2 (5 for ASAM), each tensor by itself, with a copy of the model at the top."""
    weights = list(model.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(model(images), targets), weights)
    lengths = [(w.abs() if adaptive else torch.ones_like(w)) * g for w, g in zip(weights, gradients, strict=True)]
    norm = math.sqrt(sum(float((length.detach().double() ** 2).sum()) for length in lengths))
    top = copy.deepcopy(model)
    with torch.no_grad():
        for w, g in zip(top.parameters(), gradients, strict=True):
            w += RHO[adaptive] * (w**2 if adaptive else 1) * g / norm
    return list(torch.autograd.grad(F.cross_entropy(top(images), targets), list(top.parameters())))


@pytest.mark.parametrize("adaptive", [False, True])
def test_thirty_steps_equal_the_written_out_formula_in_float64(adaptive):
    ours, theirs = small_net(torch.float64), small_net(torch.float64)
    learner = make_learner(model=ours, lr=0.05, sam_rho=RHO[adaptive], sam_adaptive=adaptive, interval="epoch")
    learner.loss_fn = F.cross_entropy
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    images, targets = torch.randn(30, 8, 3, 8, 8, dtype=torch.float64), torch.randint(2, (30, 8))
    start = copy.deepcopy(ours.state_dict())
    for x, y in zip(images, targets, strict=True):
        loss = F.cross_entropy(theirs(x), y).item()  # moves the running statistics, as the first pass does
        kept = copy.deepcopy(list(theirs.buffers()))
        for w, g in zip(theirs.parameters(), by_hand(theirs, x, y, adaptive), strict=True):
            w.grad = g
        for buffer, before in zip(theirs.buffers(), kept, strict=True):
            buffer.copy_(before)
        optimizer.step()
        logged, _, _ = loop.train_step(learner, x, y, step=0, want_norm=False)
        assert logged.item() == pytest.approx(loss, rel=1e-9)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-9, atol=1e-10)
    assert (ours[0].weight - start["0.weight"]).abs().max() > 0.01


def test_it_is_another_gradient_than_the_plain_one():
    x, y = torch.randn(8, 3, 8, 8), torch.randint(2, (8,))
    learner = make_learner(model=small_net(), sam_rho=0.5)
    plain = make_learner(model=small_net())
    for one in (learner, plain):
        loop.train_step(one, x, y, step=0, want_norm=False)
    assert not torch.allclose(learner.model[0].weight, plain.model[0].weight, atol=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("scale", [2.0**-10, 2.0**16])
def test_the_climb_does_not_depend_on_the_loss_scale(adaptive, scale):
    x, y = torch.randn(8, 3, 8, 8), torch.randint(2, (8,))
    tops = []
    for factor in (1.0, scale):
        model = small_net()
        (F.cross_entropy(model(x), y) * factor).backward()
        with perturb_weights(model, 0.1, adaptive) as norm:
            tops.append([p.detach().clone() for p in model.parameters()])
            assert all(p.grad is None for p in model.parameters())
        assert norm > 0
    for one, other in zip(*tops, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_the_climb_is_rho_long_and_the_way_back_exact_also_out_of_an_error():
    model = small_net()
    F.cross_entropy(model(torch.randn(8, 3, 8, 8)), torch.randint(2, (8,))).backward()
    before = copy.deepcopy(model.state_dict())

    def second_pass() -> None:
        with perturb_weights(model, 0.07):
            moved = [p - before[name] for name, p in model.named_parameters()]
            assert nn.utils.get_total_norm(moved).item() == pytest.approx(0.07, rel=1e-4)
            raise RuntimeError("in the second pass")

    with pytest.raises(RuntimeError, match="in the second pass"):
        second_pass()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_makes_the_second_one_nan_throughout(value):
    model = small_net()
    x, y = torch.randn(8, 3, 8, 8), torch.randint(2, (8,))
    F.cross_entropy(model(x), y).backward()
    before = copy.deepcopy(dict(model.named_parameters()))
    model[0].bias.grad[0] = value
    with perturb_weights(model, 0.05):
        F.cross_entropy(model(x), y).backward()
        assert all(p.grad.isnan().all() for p in (model[4].weight, model[4].bias))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_gradient_of_zero_is_no_climb():
    model = small_net()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = copy.deepcopy(model.state_dict())
    with perturb_weights(model, 0.05):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_running_statistics_are_those_of_one_plain_forward():
    x, y = torch.randn(16, 3, 8, 8) + 3, torch.randint(2, (16,))
    model, plain = small_net(), small_net()
    loop.train_step(make_learner(model=model, sam_rho=0.5), x, y, step=0, want_norm=True)
    plain(x)
    assert torch.equal(model[1].running_mean, plain[1].running_mean)
    assert torch.equal(model[1].running_var, plain[1].running_var)
    assert model[1].num_batches_tracked == 1


def overflowing_second_pass(learner: loop.Learner) -> None:
    """Let the loss of each second pass be infinite."""
    honest, calls = learner.loss_fn, []

    def loss_fn(logits, targets):
        calls.append(1)
        return honest(logits, targets) * (math.inf if len(calls) % 2 == 0 else 1)

    learner.loss_fn = loss_fn


@pytest.mark.parametrize("first_pass", [False, True])
def test_an_overflow_under_a_loss_scale_skips_one_step_and_halves_the_scale(first_pass):
    learner = make_learner(model=small_net(), sam_rho=0.05)
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    x, y = torch.randn(8, 3, 8, 8), torch.randint(2, (8,))
    honest, weights = learner.loss_fn, copy.deepcopy(dict(learner.model.named_parameters()))
    if first_pass:
        learner.loss_fn = lambda logits, targets: honest(logits, targets) * math.inf
    else:
        overflowing_second_pass(learner)
    loop.train_step(learner, x, y, step=0, want_norm=True)
    assert all(torch.equal(p, weights[name]) for name, p in learner.model.named_parameters())
    assert learner.scaler.get_scale() == 2.0**9
    assert learner.schedule.scheduler.last_epoch == 0

    learner.loss_fn = honest
    loop.train_step(learner, x, y, step=0, want_norm=True)
    assert all(p.isfinite().all() for p in learner.model.parameters())
    assert not torch.equal(learner.model[0].weight, weights["0.weight"])
    assert learner.schedule.scheduler.last_epoch == 1


def test_without_a_loss_scale_an_overflow_skips_the_step_too_and_ten_in_a_row_end_the_run():
    learner = make_learner(model=small_net(), sam_rho=0.05)
    overflowing_second_pass(learner)
    weights = copy.deepcopy(dict(learner.model.named_parameters()))
    loss, _, norm = loop.train_step(learner, torch.randn(8, 3, 8, 8), torch.randint(2, (8,)), step=0, want_norm=True)
    assert loss.isnan()
    assert not norm.isfinite()
    assert all(torch.equal(p, weights[name]) for name, p in learner.model.named_parameters())
    assert learner.optimizer.state == {}
    assert learner.schedule.scheduler.last_epoch == 0

    with pytest.raises(NonFiniteLoss, match=r"a trainer\.sam_rho below 0\.05"):
        run(learner, make_data(), batch_size=4)


def test_clipping_is_of_the_second_gradient():
    x, y = torch.randn(8, 3, 8, 8), torch.randint(2, (8,))
    model = small_net()
    gradient = by_hand(copy.deepcopy(model), x, y, adaptive=False)
    before = [p.detach().clone() for p in model.parameters()]
    learner = make_learner(model=model, lr=1.0, sam_rho=RHO[False], grad_clip_norm=0.01)
    _, _, norm = loop.train_step(learner, x, y, step=0, want_norm=False)
    assert norm.item() == pytest.approx(nn.utils.get_total_norm(gradient).item(), rel=1e-4)
    moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    assert nn.utils.get_total_norm(moved).item() == pytest.approx(0.01, rel=1e-3)


def test_both_passes_drop_the_same_activations():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 2))
    seen = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output == 0))
    loop.train_step(make_learner(model=model, sam_rho=0.05), torch.randn(8, 3, 8, 8), torch.randint(2, (8,)), 5, False)
    assert len(seen) == 2
    assert torch.equal(*seen)
    assert 0.3 < seen[0].float().mean() < 0.7


def test_a_batch_in_parts_climbs_by_the_gradient_of_all_of_it():
    x, y = torch.randn(8, 3, 8, 8), torch.randint(2, (8,))
    models = [nn.Sequential(nn.Flatten(), nn.Linear(192, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, size in zip(models, (None, 3), strict=True):
        loop.train_step(make_learner(model=model, sam_rho=0.5, micro_batch_size=size), x, y, step=0, want_norm=False)
    torch.testing.assert_close(models[0][1].weight, models[1][1].weight)


def test_it_keeps_no_state():
    learner, plain = make_learner(sam_rho=0.05), make_learner()
    run(learner, make_data())
    run(plain, make_data())
    ours, theirs = learner.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert type(ours[key]) is type(theirs[key])
    assert [s.keys() for s in ours["optimizer"]["state"].values()] == [
        s.keys() for s in theirs["optimizer"]["state"].values()
    ]


@pytest.mark.parametrize("lr", [0.1, 0.5])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_high_learning_rate_stays_finite(precision, lr):
    """The pipeline that Iolaus replaces got NaN here: its climb divided scaled gradients by their unscaled norm."""
    learner = make_learner(precision, model=small_net(), lr=lr, sam_rho=0.05, interval="epoch")
    state = run(learner, make_data(), epochs=10)
    assert len(state.history) == 10
    assert all(math.isfinite(m["train/loss"]) for m in state.history)
    assert state.history[-1]["train/loss"] < state.history[0]["train/loss"]


@pytest.mark.parametrize("lr", [0.1, 0.5])
def test_a_high_learning_rate_stays_finite_under_a_loss_scale(lr):
    learner = make_learner(model=small_net(), lr=lr, sam_rho=0.05, interval="epoch")
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    state = run(learner, make_data(), epochs=10)
    assert all(math.isfinite(m["train/loss"]) for m in state.history)
    assert all(p.isfinite().all() for p in learner.model.parameters())
    assert learner.scaler.get_scale() >= 2.0**15


@needs_cuda
@pytest.mark.parametrize("lr", [0.1, 0.5])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_high_learning_rate_stays_finite_in_16_bits_on_cuda(precision, lr):
    device = torch.device("cuda")
    learner = make_learner(precision, device, lr, small_net(), sam_rho=0.05, interval="epoch")
    state = run(learner, make_data(device=device), epochs=10)
    assert all(math.isfinite(m["val/loss"]) for m in state.history)
    assert all(p.isfinite().all() for p in learner.model.parameters())


@pytest.mark.parametrize("make", ["SGD", "Adam", "AdamW", "RMSprop", "Muon"])
def test_it_goes_with_every_optimizer(make):
    from iolaus.methods.muon import Muon
    from iolaus.methods.schedules import Schedule, stand_in

    learner = make_learner(model=small_net(), sam_rho=0.05)
    optimizer_class = Muon if make == "Muon" else getattr(torch.optim, make)
    learner.optimizer = optimizer_class(learner.model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ConstantLR(stand_in(learner.optimizer), 1.0)
    learner.schedule = Schedule(scheduler, learner.optimizer)
    history = run(learner, make_data(), epochs=8).history
    assert history[-1]["train/loss"] < history[0]["train/loss"]
