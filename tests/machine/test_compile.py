"""trainer.compile: in place, tried before the run, and eager with a warning where it does not work."""

import contextlib

import pytest
import torch
from conftest import TINY
from torch import nn

from iolaus.machine.compile import compile_in_place

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


def test_a_model_that_can_not_be_compiled_runs_as_it_is_with_a_warning(monkeypatch, caplog):
    def fail(self, *arguments, **options):
        raise RuntimeError("no compiler here\nand a long story")

    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(nn.Module, "compile", fail)
    assert not compile_in_place(model, torch.ones(4, 3, 8, 8), contextlib.nullcontext())
    assert "runs as it is, since compiling it failed: no compiler here" in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_error_at_the_first_call_is_caught_as_well(monkeypatch):
    def compile_badly(self, *arguments, **options):
        def broken(*inputs):
            raise AssertionError("at the first call")

        self._compiled_call_impl = broken

    model, images = small_model(), torch.ones(4, 3, 8, 8)
    expected = small_model()(images)
    monkeypatch.setattr(nn.Module, "compile", compile_badly)
    assert not compile_in_place(model, images, contextlib.nullcontext())
    assert torch.equal(model(images), expected)


def test_a_compiled_model_keeps_weights_and_names_and_gives_what_it_gave():
    model, plain, images = small_model(), small_model(), torch.randn(4, 3, 8, 8)
    if not compile_in_place(model, images, contextlib.nullcontext()):
        pytest.skip("torch.compile does not work on this machine (it needs a C++ compiler)")
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(model(images), plain(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "works", "expected"),
    [
        ("true", True, None),
        ("true", False, None),
        ("reduce-overhead", True, "reduce-overhead"),
        ("max-autotune", True, "max-autotune"),
    ],
)
def test_results_say_whether_the_model_was_compiled(command, monkeypatch, given, works, expected):
    tried = []

    def pretend(model, images, autocast, mode):
        tried.append((tuple(images.shape), mode))
        return works

    monkeypatch.setattr("iolaus.config.build.compile_in_place", pretend)
    outcome = command(*TINY, f"trainer.compile={given}")
    assert outcome.status == 0, outcome.err
    assert outcome.results["compiled"] is works
    assert tried == [((16, 3, 8, 8), expected)]


def test_the_mode_is_torchs_and_another_one_is_refused(command, monkeypatch):
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: asked.append(options))
    for mode in (None, "reduce-overhead"):
        assert compile_in_place(small_model(), torch.ones(4, 3, 8, 8), contextlib.nullcontext(), mode)
    assert asked == [{"mode": None}, {"mode": "reduce-overhead"}]
    refused = command(*TINY, "trainer.compile=fast")
    assert refused.status == 2
    assert "trainer.compile=fast" in refused.err
