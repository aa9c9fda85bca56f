"""Every training method as a person asks for it: by a key, with what the run then says, keeps and refuses."""

import json

import pytest
import torch
from conftest import TINY
from test_resume import reproducible_results

from iolaus.files import checkpoint

BASE = (*TINY, "dataset.train_count=60", "trainer.epochs=2", "model.widths=[8,8,8]")


def history(outcome, name="run"):
    return reproducible_results(outcome.cwd / "outputs" / name)["history"]


def run(command, *arguments, name="run"):
    outcome = command(*BASE, *arguments, f"hydra.run.dir=outputs/{name}")
    assert outcome.status == 0, outcome.err
    return outcome


def refused(command, *arguments):
    outcome = command(*arguments)
    assert outcome.status == 2
    assert not (outcome.cwd / "outputs").exists()
    (line,) = outcome.err.strip().splitlines()
    return line.removeprefix("iolaus: ")


def test_the_optimizer_sam_is_sgd_with_sam_and_its_radius_can_be_given(command):
    one = run(command, "optimizer=sam", name="a")
    two = run(command, "optimizer=sgd", "trainer.sam_rho=0.05", name="b")
    three = run(command, "optimizer=sam", "trainer.sam_rho=0.5", name="c")
    assert history(one, "a") == history(two, "b")
    assert history(one, "a") != history(three, "c")


def test_groups_are_named_in_the_log_and_their_rates_in_the_metrics(command):
    outcome = run(command, "optimizer=sgd", "optimizer_groups=discriminative", "scheduler=constant", "lr=0.1")
    told = outcome.out + outcome.err
    for line in ("block 1 (lr 0.025, ", "block 2 (lr 0.05, ", "block 3 (lr 0.1, ", "classifier (lr 0.1, "):
        assert line in told
    assert [history(outcome)[-1][key] for key in ("lr", "lr/1", "lr/2", "lr/3")] == [0.025, 0.05, 0.1, 0.1]


def test_the_split_of_muon_is_told_and_both_rates_follow_the_schedule(command):
    outcome = run(command, "optimizer=muon", "optimizer.adamw_lr=0.002", "scheduler=step", "scheduler.step_size=1")
    assert "all, muon (lr 0.02, " in outcome.out + outcome.err
    assert "all, adamw (lr 0.002, " in outcome.out + outcome.err
    rates = [(m["lr"], m["lr/1"]) for m in history(outcome)]
    assert rates == [(0.02, 0.002), (pytest.approx(0.002), pytest.approx(0.0002))]


def test_a_linear_probe_moves_the_classifier_alone(command):
    first = run(command, name="first")
    weights = first.cwd / "outputs" / "first"
    probe = run(command, f"model.weights={weights}", "optimizer_groups=linear_probe", name="probe")
    assert "frozen: " in probe.out + probe.err
    before, after = (checkpoint.load(folder / "best.pt")["model"] for folder in (weights, probe.cwd / "outputs/probe"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.3.weight", "head.3.bias"}


def test_weights_of_a_run_are_where_the_next_one_starts(command):
    first = run(command, name="first")
    best = first.cwd / "outputs" / "first" / "best.pt"
    expected = json.loads((best.parent / "results.json").read_text())["metrics"]["best"]
    outcome = run(command, f"model.weights={best}", "lr=0.0", "scheduler=constant", "model.dropout=0",
                  "augmentation=none", "trainer.epochs=1", "optimizer_groups.lr_factors=[0.0]",
                  "optimizer_groups.classifier_lr_factor=1", name="second")  # fmt: skip
    assert f"weights of {best}: all 38 tensors" in outcome.out + outcome.err
    (only,) = history(outcome, "second")
    assert only["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-5)
    assert only["val/accuracy"] == expected["val/accuracy"]


def test_a_resumed_run_needs_the_file_that_it_started_from_no_more(command):
    first = run(command, name="first")
    weights = first.cwd / "outputs" / "first" / "best.pt"
    run(command, f"model.weights={weights}", name="whole")
    run(command, f"model.weights={weights}", name="cut")
    (first.cwd / "outputs" / "cut" / "results.json").unlink()
    weights.unlink()
    assert command("resume=outputs/cut").status == 0
    assert history(first, "cut") == history(first, "whole")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("model.weights=nowhere/best.pt",), "model.weights=nowhere/best.pt: no such file"),
        (("optimizer_groups.lr_factors=[1,1,1,1]",), "optimizer_groups.lr_factors=[1, 1, 1, 1]: CNN has 3 blocks"),
        (("optimizer_groups.lr_factors=[-1]",), "optimizer_groups.lr_factors=[-1]: must be 0 or more, or null"),
        (("optimizer_groups.lr_factors=[0]",), "CNN has no parameter that is trained"),
        (
            ("optimizer_groups.no_decay=true",),
            "optimizer_groups.no_decay: no such key; did you mean no_decay_on_norm_and_bias? allowed: c",
        ),
        (("scheduler.warmup_epochs=2",), "scheduler.warmup_epochs=2: must be less than trainer.epochs=2"),
        (("scheduler.warmup_epochs=-1",), "scheduler.warmup_epochs=-1: must be 0 or more"),
        (("trainer.sam_rho=0",), "trainer.sam_rho=0: must be above 0, or null for none"),
        (("trainer.sam_adaptive=true",), "trainer.sam_adaptive=true: must be given with sam_rho"),
        (("trainer.ema_decay=1.0",), "trainer.ema_decay=1.0: must be between 0 and 1, or null for none"),
        (("trainer.micro_batch_size=0",), "trainer.micro_batch_size=0: must be above 0, or null for none"),
        (("trainer.scale_lr_with_batch=cubic",), "trainer.scale_lr_with_batch=cubic: expected none or linear or sqrt"),
        (("trainer.monitor_every=-1",), "trainer.monitor_every=-1: must be 0 or more seconds"),
        (("optimizer=muon", "optimizer.momentum=1.5"), "optimizer.momentum=1.5: must be 0 or more, and below 1"),
        (("optimizer=muon", "optimizer.adjust_lr=no"), "optimizer.adjust_lr=no"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_allowed(command, arguments, line):
    assert line in refused(command, *BASE, *arguments)


def test_weights_of_a_file_and_of_the_library_are_not_asked_for_at_once(command):
    line = refused(command, *TINY, "model=resnet18", "model.weights=x.pt", "model.pretrained=true")
    assert line == "model.weights=x.pt: a file to start from, and model.pretrained=true; drop one"


def test_deterministic_algorithms_are_on_for_the_run_that_asks_for_them_alone(command):
    run(command, "trainer.deterministic=true", name="a")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    run(command, "trainer.deterministic=true", name="b")
    last = run(command, name="c")
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert history(last, "a") == history(last, "b") == history(last, "c")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "try a trainer.micro_batch_size below"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "try a trainer.micro_batch_size below"),
        (RuntimeError("foo_cuda does not have a deterministic implementation"), "trainer.deterministic=true: foo_cuda"),
    ],
)
def test_what_torch_says_in_the_middle_of_a_run_is_one_line_with_advice(command, monkeypatch, error, advice):
    from iolaus import loop

    def train_step(*args, **kwargs):
        raise error

    monkeypatch.setattr(loop, "train_step", train_step)
    outcome = command(*BASE)
    assert outcome.status == 1
    assert advice in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.results["status"] == "failed"
    assert advice in outcome.results["error"]


def test_an_unknown_error_keeps_its_traceback(command, monkeypatch):
    from iolaus import loop

    def train_step(*args, **kwargs):
        raise RuntimeError("the unexpected")

    monkeypatch.setattr(loop, "train_step", train_step)
    with pytest.raises(RuntimeError, match="the unexpected"):
        command(*BASE)


def test_a_runs_hardware_is_in_its_results_or_not_looked_at(command):
    watched = run(command, name="a")
    results = json.loads((watched.cwd / "outputs" / "a" / "results.json").read_text())
    assert results["hardware"]["ram_bytes"] > 50e6
    assert all(m["hardware/ram_bytes"] <= results["hardware"]["ram_bytes"] for m in results["history"])
    run(command, "trainer.monitor_every=0", name="b")
    results = json.loads((watched.cwd / "outputs" / "b" / "results.json").read_text())
    assert results["hardware"] == {}


def test_a_model_can_take_its_first_weights_from_the_training_images(command):
    outcome = run(command, "model=airbench", "~model.widths", "dataset.size=16", "trainer.epochs=1")
    again = run(command, "model=airbench", "~model.widths", "dataset.size=16", "trainer.epochs=1", name="again")
    assert history(outcome) == history(again, "again")
