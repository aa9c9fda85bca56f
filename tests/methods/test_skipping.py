"""A step that the device skips is a step that was never taken, and nobody has to wait to know it."""

import copy
import math

import pytest
import torch
from test_loop import make_learner
from torch import nn

from iolaus import loop
from iolaus.machine.late import LateNumber
from iolaus.methods.muon import Muon
from iolaus.methods.schedules import Schedule, stand_in
from iolaus.methods.skipping import step_or_skip, step_unless

MAKE = {
    "sgd": lambda params: torch.optim.SGD(params, 0.1, momentum=0.9, dampening=0.5, fused=True),
    "plain sgd": lambda params: torch.optim.SGD(params, 0.1, fused=True),
    "adamw": lambda params: torch.optim.AdamW(params, 0.1, fused=True),
    "muon": Muon,
    "rmsprop, which waits": torch.optim.RMSprop,
}


class Slow(LateNumber):
    """A number that has not arrived yet, as those of a GPU."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__(value.clone())

    @property
    def here(self) -> bool:
        return False


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def contents(optimizer: torch.optim.Optimizer) -> dict:
    return copy.deepcopy(optimizer.state_dict()["state"])


@pytest.mark.parametrize("scaled", [False, True], ids=["by a flag", "by a loss scale"])
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("skips", [(0,), (2,), (0, 1, 3)])
def test_steps_that_overflow_leave_what_a_run_without_them_has(kind, skips, scaled):
    """The first one, too: torch's fused SGD would go on from momentum that nothing was ever written to."""
    models = [small_model(), small_model()]
    optimizers = [MAKE[kind](model.parameters()) for model in models]
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=8.0)
    nothing = torch.amp.GradScaler("cpu", enabled=False)
    for step, images in enumerate(torch.randn(6, 5, 3, 8, 8)):
        bad = step in skips
        for model, optimizer, scale in zip(models, optimizers, (scaler, nothing), strict=True):
            optimizer.zero_grad()
            if bad and model is models[1]:
                continue
            scale.scale(model(images).square().mean()).backward()
            if bad:
                model[0].weight.grad[0, 0, 0, 0] = math.inf
        overflow = None if scaled else torch.tensor(bad)
        assert bool(step_or_skip(optimizers[0], scaler, overflow).read()) == bad
        if not bad:
            assert step_or_skip(optimizers[1], nothing, None) is None
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)
    ours, theirs = map(contents, optimizers)
    assert ours.keys() == theirs.keys()
    for number, state in theirs.items():
        assert all(torch.equal(ours[number][name], value) for name, value in state.items() if value is not None)


def test_an_optimizer_that_skips_on_the_device_is_not_waited_for():
    class Watched(torch.Tensor):
        """A flag that may not be read."""

        def __bool__(self) -> bool:
            pytest.fail("somebody waits for it")

    for kind in ("sgd", "adamw", "muon"):
        model = small_model()
        optimizer = MAKE[kind](model.parameters())
        model(torch.randn(5, 3, 8, 8)).square().mean().backward()
        step_unless(optimizer, torch.tensor(False).as_subclass(Watched))
        assert not hasattr(optimizer, "found_inf")


def rates_seen(late: bool, monkeypatch) -> tuple[list[float], list[float], int]:
    """Learning rates and losses of ten steps of which the third and the fourth overflow."""
    if late:
        monkeypatch.setattr("iolaus.methods.skipping.LateNumber", Slow)
    learner = make_learner(model=small_model())
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    learner.schedule = Schedule(torch.optim.lr_scheduler.ExponentialLR(stand_in(learner.optimizer), 0.5),
                                learner.optimizer, "step", warmup_steps=3)  # fmt: skip
    honest, rates, losses, calls = learner.loss_fn, [], [], []
    learner.loss_fn = lambda *given: honest(*given) * (math.inf if len(calls) in (2, 3) else 1.0)
    torch.manual_seed(2)
    for step in range(10):
        images, targets = torch.randn(8, 3, 8, 8), torch.randint(2, (8,))
        loss, _, _ = loop.train_step(learner, images, targets, step, want_norm=False)
        calls.append(1)
        rates.append(learner.optimizer.param_groups[0]["lr"])
        losses.append(loss.item())
    saved = learner.schedule.state_dict()  # settles the last step
    return rates, losses, saved["scheduler"]["last_epoch"]


def test_a_schedule_that_reads_the_answer_late_has_the_rates_of_one_that_reads_it_at_once(monkeypatch):
    at_once = rates_seen(False, monkeypatch)
    late = rates_seen(True, monkeypatch)
    assert late == at_once
    assert at_once[2] == 8  # ten steps, two of them skipped
    assert at_once[0][3] == at_once[0][2] == at_once[0][4]  # the third and the fourth have not moved it


def test_the_answer_is_read_before_the_epoch_ends_and_thrown_away_with_a_loaded_state():
    learner = make_learner()
    schedule = learner.schedule
    before = schedule.state_dict()
    schedule.after_step(Slow(torch.tensor(False)))
    assert schedule.scheduler.last_epoch == 0
    schedule.after_epoch({})
    assert schedule.scheduler.last_epoch == 1
    schedule.after_step(Slow(torch.tensor(False)))
    schedule.load_state_dict(before)
    schedule.before_step(0)
    assert schedule.scheduler.last_epoch == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_late_number_of_a_gpu_is_that_of_the_moment():
    value = torch.zeros((), device="cuda")
    numbers = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            numbers.append(LateNumber(value))
            value += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [number.read() for number in numbers] == [0, 1, 2, 3, 4]
