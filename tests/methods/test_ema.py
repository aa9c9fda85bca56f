"""The moving average of the weights equals its formula, and is what a run evaluates and keeps."""

import pytest
import torch
from test_loop import make_data, make_learner, run
from torch import nn

from iolaus import loop
from iolaus.files import checkpoint
from iolaus.methods.ema import ModelEma


def a_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_it_equals_the_formula_with_its_warm_up_for_weights_and_running_statistics(decay):
    live = a_net()
    average, expected = ModelEma(live, decay), {k: v.clone().double() for k, v in live.state_dict().items()}
    for step in range(1, 40):
        with torch.no_grad():
            for p in live.parameters():
                p += torch.randn_like(p)
            live(torch.randn(8, 3, 8, 8))
        average.update(step)
        d = min(decay, (1 + step) / (10 + step))
        for name, value in live.state_dict().items():
            expected[name] = d * expected[name] + (1 - d) * value.double()
    for name, value in average.model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 39
        else:
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-5)


def test_it_is_another_model_and_is_never_trained():
    live = a_net()
    average = ModelEma(live, 0.9)
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    assert not {p.data_ptr() for p in live.parameters()} & {p.data_ptr() for p in average.model.parameters()}


def test_it_takes_in_every_step_and_is_what_is_evaluated():
    data, model = make_data(), a_net()
    learner = make_learner(model=model, ema=ModelEma(model, 0.5))
    by_hand = ModelEma(a_net(), 0.5)
    plain = make_learner(model=a_net())
    by_hand.values = [v for v in [*plain.model.parameters(), *plain.model.buffers()] if v.is_floating_point()]
    original, steps = loop.train_step, []

    def train_step(learner, *args, **kwargs):
        done = original(learner, *args, **kwargs)
        steps.append(1)
        by_hand.update(len(steps))
        return done

    loop.train_step = train_step
    try:
        run(plain, data)
    finally:
        loop.train_step = original
    state = run(learner, data)
    assert len(steps) == state.step
    for one, other in zip(learner.ema.model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert learner.eval_model is learner.ema.model
    logits = learner.ema.model(data.val.normalise(data.val.images))
    accuracy = (logits.argmax(1) == data.val.targets).float().mean().item()
    assert state.history[-1]["val/accuracy"] == pytest.approx(accuracy)
    assert not torch.equal(learner.model[0].weight, learner.ema.model[0].weight)


def test_best_pt_holds_the_average_and_last_pt_both(command):
    from conftest import TINY

    outcome = command(*TINY, "trainer.ema_decay=0.9", "trainer.epochs=3", "hydra.run.dir=outputs/run")
    assert outcome.status == 0, outcome.err
    folder = outcome.cwd / "outputs" / "run"
    best, last = (checkpoint.load(folder / name) for name in ("best.pt", "last.pt"))
    if best["metrics"]["epoch"] == 2:
        for name, value in best["model"].items():
            assert torch.equal(value, last["learner"]["ema"][name])
    weight = next(iter(last["learner"]["model"]))
    assert not torch.equal(last["learner"]["model"][weight], last["learner"]["ema"][weight])


def test_frozen_weights_are_their_own_average():
    live = a_net()
    live[0].requires_grad_(False)
    average = ModelEma(live, 0.9)
    average.update(1)
    assert torch.equal(average.model[0].weight, live[0].weight)
