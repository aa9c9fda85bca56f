"""The training loop agrees with loops written by hand; what a step may and may not change."""

import math
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from iolaus import loop
from iolaus.augment.mix import Mixed
from iolaus.augment.pipeline import Augmentation
from iolaus.data.epoch import EpochPlan, EpochSettings
from iolaus.data.resident import Resident
from iolaus.data.shape import ImageShape
from iolaus.data.sources import Split, synthetic
from iolaus.learner import LoopState
from iolaus.machine import hardware
from iolaus.machine.monitor import Monitor
from iolaus.methods.losses import loss_functions
from iolaus.methods.metrics import ClassCounts
from iolaus.methods.schedules import Schedule, stand_in
from iolaus.methods.stopping import NonFiniteLoss
from iolaus.settings import Trainer
from iolaus.show.batch import batch_picture
from iolaus.show.progress import NullProgress
from iolaus.show.trackers import TrackerList

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def make_data(count: int = 40, device: torch.device = CPU, mixed: Augmentation | None = None) -> SimpleNamespace:
    """Noise with a little signal: the second class is brighter."""
    source = synthetic(num_classes=2, size=8, train_count=count, test_count=count)

    def place(split: Split) -> Resident:
        images = (split.images // 2) + (split.targets * 100).to(torch.uint8).view(-1, 1, 1, 1)
        half = torch.full((1, 3, 1, 1), 0.5)
        settings = EpochSettings(ImageShape(3, 8, 8), (half, half / 2), mixed, classes=("dark", "bright"))
        return Resident(images.to(device), split.targets, settings)

    return SimpleNamespace(train=place(source.train), val=place(source.test))


def make_learner(
    precision: str = "fp32", device: torch.device = CPU, lr: float = 0.1, model: nn.Module | None = None, **kwargs
) -> loop.Learner:
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2))
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(stand_in(optimizer), 3, 0.5)
    schedule = Schedule(scheduler, optimizer, kwargs.pop("interval", "step"))
    losses = loss_functions(nn.CrossEntropyLoss(), one_hot=False, num_classes=2)
    names = {field.name for field in fields(Trainer)} & kwargs.keys()
    settings = Trainer(**{"epochs": 3, "batch_size": 16, **{name: kwargs.pop(name) for name in names}})
    dtype = hardware.DTYPES[precision]
    return loop.Learner(model, *losses, optimizer, schedule, settings, device, precision, dtype, **kwargs)


def observers(tracker: Any = None, monitor: Any = None) -> loop.Observers:
    return loop.Observers(tracker or TrackerList([]), NullProgress(), monitor or Monitor(CPU, 0, lambda: 0))


def run(learner: loop.Learner, data: SimpleNamespace, seed: int = 7, **settings) -> LoopState:
    state, learner.seed = LoopState(), seed
    learner.settings = replace(learner.settings, **settings)
    train(learner, data, state, observers())
    return state


def train(learner, data, state, observers, should_stop=lambda history: False):
    loop.train(learner, data, state, observers, "val/accuracy", should_stop, lambda: False, lambda: None)


def test_training_equals_a_loop_written_by_hand():
    data, learner, by_hand = make_data(), make_learner(grad_clip_norm=0.5), make_learner()
    state = run(learner, data)

    optimizer = by_hand.optimizer
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    for epoch in range(3):
        order = EpochPlan(data.train.settings, 40, epoch, train=True).order
        losses, correct = [], 0
        for batch in order[:32].split(16):
            images = data.train.normalise(data.train.images[batch])
            logits = by_hand.model(images)
            loss = nn.functional.cross_entropy(logits, data.train.targets[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(by_hand.model.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
            correct += (logits.argmax(1) == data.train.targets[batch]).sum().item()
        assert state.history[epoch]["train/loss"] == pytest.approx(sum(losses) / 2)
        assert state.history[epoch]["train/accuracy"] == correct / 32
    for ours, theirs in zip(learner.model.parameters(), by_hand.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_evaluation_is_the_mean_over_all_images_whatever_the_batch_size():
    data, learner = make_data(41), make_learner()
    images = data.val.normalise(data.val.images)
    logits = learner.model(images)
    loss = nn.functional.cross_entropy(logits, data.val.targets).item()
    accuracy = (logits.argmax(1) == data.val.targets).float().mean().item()
    figures = ClassCounts()  # which tests/methods/test_metrics.py compares with scikit-learn's
    figures.add(logits, data.val.targets)
    for batch_size in (1, 7, 41, 500):
        metrics, batch_losses = loop.evaluate(learner, data.val, batch_size)
        assert metrics == pytest.approx({"loss": loss, "accuracy": accuracy, **figures.metrics()}, abs=1e-6)
        assert len(batch_losses) == math.ceil(41 / batch_size)


def test_evaluation_leaves_dropout_and_running_statistics_alone():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Dropout(0.5), nn.Linear(192, 2))
    data, learner = make_data(), make_learner(model=model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (loop.evaluate(learner, data.val, 16)[0] for _ in range(2))
    assert first == second
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("clip", [0.01, 0.5])
def test_a_clipped_step_moves_by_the_clipped_gradient(clip):
    data, learner = make_data(), make_learner(grad_clip_norm=clip, lr=1.0)
    before = [p.detach().clone() for p in learner.model.parameters()]
    images, targets = next(data.train.batches(16, 0, train=True))
    _, _, norm = loop.train_step(learner, images, targets, 0, want_norm=False)
    assert norm > clip
    moved = [p.detach() - b for p, b in zip(learner.model.parameters(), before, strict=True)]
    assert nn.utils.get_total_norm(moved).item() == pytest.approx(clip, rel=1e-4)


def test_the_logged_gradient_norm_is_that_of_the_gradients():
    data, learner, twin = make_data(), make_learner(), make_learner()
    images, targets = next(data.train.batches(16, 0, train=True))
    nn.functional.cross_entropy(twin.model(images), targets).backward()
    expected = math.sqrt(sum(p.grad.square().sum().item() for p in twin.model.parameters()))
    assert loop.train_step(learner, images, targets, 0, want_norm=True)[2].item() == pytest.approx(expected, rel=1e-5)
    assert loop.train_step(learner, images, targets, 0, want_norm=False)[2] is None


def test_bf16_trains_to_nearly_the_same_losses_as_fp32():
    data = make_data()
    full, half = run(make_learner(lr=0.02), data), run(make_learner("bf16", lr=0.02), data)
    for a, b in zip(full.history, half.history, strict=True):
        assert a["train/loss"] != b["train/loss"]
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=0.03)
        assert a["val/loss"] == pytest.approx(b["val/loss"], rel=0.03)


def test_bf16_keeps_weights_and_optimizer_state_in_fp32():
    data, learner = make_data(), make_learner("bf16")
    run(learner, data)
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}
    assert {s["momentum_buffer"].dtype for s in learner.optimizer.state.values()} == {torch.float32}


def test_a_step_of_fp16_that_overflows_is_skipped_halves_the_scale_and_does_not_move_the_schedule():
    # the scaler itself runs on a CPU too: only training in fp16 is refused there
    learner = make_learner()
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    images, targets = next(make_data().train.batches(16, 0, train=True))
    loop.train_step(learner, images, targets, 0, want_norm=True)
    before = [p.detach().clone() for p in learner.model.parameters()]
    steps, scale = learner.schedule.scheduler.last_epoch, learner.scaler.get_scale()

    infinite = make_learner()
    learner.loss_fn, honest = (lambda logits, targets: infinite.loss_fn(logits, targets) * math.inf), learner.loss_fn
    loop.train_step(learner, images, targets, 0, want_norm=True)
    assert all(torch.equal(p, b) for p, b in zip(learner.model.parameters(), before, strict=True))
    assert learner.scaler.get_scale() == scale / 2
    assert learner.schedule.scheduler.last_epoch == steps

    learner.loss_fn = honest
    loop.train_step(learner, images, targets, 0, want_norm=True)
    assert learner.schedule.scheduler.last_epoch == steps + 1
    assert not all(torch.equal(p, b) for p, b in zip(learner.model.parameters(), before, strict=True))


@needs_cuda
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_on_cuda_train_to_nearly_the_same_losses_as_fp32(precision):
    device = torch.device("cuda")
    data = make_data(device=device)
    full, half = run(make_learner(device=device, lr=0.02), data), run(make_learner(precision, device, lr=0.02), data)
    for a, b in zip(full.history, half.history, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=0.05)


@needs_cuda
def test_cuda_sees_the_same_batches_as_the_cpu():
    for ours, theirs in zip(make_data().train.batches(16, 3, train=True),
                            make_data(device=torch.device("cuda")).train.batches(16, 3, train=True),
                            strict=True):  # fmt: skip
        torch.testing.assert_close(ours, tuple(t.cpu() for t in theirs))


@pytest.mark.parametrize(("bad_step", "log_every"), [(0, 1), (1, 100), (4, 100), (5, 2)])
def test_a_nan_loss_names_its_epoch_and_step(bad_step, log_every):
    data, learner = make_data(), make_learner()
    honest, calls = learner.loss_fn, []

    def loss_fn(logits, targets):
        calls.append(1)
        return honest(logits, targets) * (math.nan if len(calls) - 1 == bad_step else 1.0)

    learner.loss_fn = loss_fn
    with pytest.raises(NonFiniteLoss, match=rf"epoch {bad_step // 2 + 1}, step {bad_step + 1} .*optimizer.lr"):
        run(learner, data, log_every=log_every)


def test_a_batch_size_schedule_changes_the_steps_and_never_passes_over_the_data():
    learner = make_learner()
    state = run(learner, make_data(), batch_size=8, batch_size_schedule={1: 20, 2: 1000})
    assert [m["batch_size"] for m in state.history] == [8, 20, 40]
    assert [m["step"] for m in state.history] == [5, 7, 8]


def test_the_scheduler_moves_per_step_or_per_epoch_as_configured():
    per_step, per_epoch = make_learner(), make_learner(interval="epoch")
    assert [m["lr"] for m in run(per_step, make_data()).history] == pytest.approx([0.1, 0.05, 0.05])
    assert [m["lr"] for m in run(per_epoch, make_data()).history] == pytest.approx([0.1, 0.1, 0.1])
    assert per_epoch.schedule.scheduler.get_last_lr() == pytest.approx([0.05])


def test_earlier_draws_change_nothing_and_another_seed_changes_the_losses():
    def history(noise: int, seed: int) -> list[dict]:
        learner = make_learner(model=nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 2)))
        with torch.no_grad():
            for p in learner.model.parameters():
                p.fill_(0.01)
        torch.manual_seed(noise)
        return [m["train/loss"] for m in run(learner, make_data(), seed=seed).history]

    assert history(1, seed=7) == history(2, seed=7) != history(1, seed=8)


@pytest.mark.parametrize("size", [1, 3, 8, 16])
def test_the_parts_of_a_batch_add_up_to_its_gradient_loss_and_correct(size):
    images, targets = next(make_data().train.batches(16, 0, train=True))
    whole, parts = make_learner(), make_learner(micro_batch_size=size)
    loss, correct = loop.backward(whole, images, targets, 0)
    part_loss, part_correct = loop.backward(parts, images, targets, 0)
    assert part_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert part_correct == correct
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 8, 16])
def test_weighted_classes_weigh_the_same_in_parts_of_a_batch(size):
    """The weights of a part are not those of the batch: a part of one rare image must not count as a whole part."""
    images, targets = next(make_data().train.batches(16, 0, train=True))
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 7.0]), label_smoothing=0.1)
    learners = [make_learner(), make_learner(micro_batch_size=size)]
    for learner in learners:
        learner.loss_fn = loss_functions(criterion, one_hot=False, num_classes=2)[0]
    (loss, _), (part_loss, _) = (loop.backward(learner, images, targets, 0) for learner in learners)
    assert part_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    for one, other in zip(*(learner.model.parameters() for learner in learners), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_size", [8, 20])
def test_a_sum_over_images_is_shown_as_their_mean(batch_size):
    def first_loss(reduction: str) -> float:
        learner = make_learner(lr=0.0, batch_size=batch_size)
        learner.loss_fn = loss_functions(nn.CrossEntropyLoss(reduction=reduction), one_hot=False, num_classes=2)[0]
        return run(learner, make_data()).history[0]["train/loss"]

    assert first_loss("sum") == pytest.approx(first_loss("mean"), rel=1e-5)


def test_micro_batches_of_mixed_images_keep_each_image_with_its_partner():
    from iolaus.augment.mix import Mixed

    images, targets = next(make_data().train.batches(16, 0, train=True))
    mixed = Mixed(targets, targets.roll(1), 0.3)
    whole, parts = make_learner(), make_learner(micro_batch_size=5)
    loss, correct = loop.backward(whole, images, mixed, 0)
    part_loss, part_correct = loop.backward(parts, images, mixed, 0)
    assert (part_loss.item(), part_correct.item()) == pytest.approx((loss.item(), correct.item()), rel=1e-5)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_no_more_than_a_micro_batch_goes_through_the_model_at_once():
    learner, seen = make_learner(micro_batch_size=6), []
    learner.model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    images, targets = next(make_data().train.batches(16, 0, train=True))
    loop.train_step(learner, images, targets, 0, want_norm=False)
    assert seen == [6, 6, 4]


def test_the_learning_rate_follows_the_batch_size_where_it_should():
    def lrs(rule: str) -> list[float]:
        learner = make_learner(interval="epoch")
        learner.schedule.scheduler.gamma = 1.0
        return [m["lr"] for m in run(learner, make_data(), batch_size=8, batch_size_schedule={1: 32},
                                     scale_lr_with_batch=rule).history]  # fmt: skip

    assert lrs("none") == pytest.approx([0.1, 0.1, 0.1])
    assert lrs("linear") == pytest.approx([0.1, 0.4, 0.4])
    assert lrs("sqrt") == pytest.approx([0.1, 0.2, 0.2])


def test_frozen_modules_stay_in_evaluation_mode():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 2))
    model[0].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(make_learner(model=model, frozen=[model[0]]), make_data())
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"2", "3"}
    assert "2.running_mean" in moved


class Log:
    """A tracker that keeps what it gets; one with `image` gets pictures, too."""

    def __init__(self):
        self.rows, self.pictures = [], []

    def log(self, metrics, step):
        self.rows.append((step, metrics))


class Album(Log):
    def image(self, name, picture, step):
        self.pictures.append((name, picture, step))


def test_a_run_shows_its_first_batch_once_and_a_resumed_one_not_again():
    data, learner, state = make_data(mixed=Augmentation(mixup_alpha=1.0)), make_learner(epochs=1), LoopState()
    album, log = Album(), Log()
    train(learner, data, state, observers(TrackerList([album, log])))
    learner.settings = replace(learner.settings, epochs=2)
    train(learner, data, state, observers(TrackerList([album, log])))
    [(name, picture, step)] = album.pictures
    assert (name, step, log.pictures) == ("train/batch", 0, [])
    images, targets = next(iter(data.train.batches(16, epoch=0, train=True)))
    assert isinstance(targets, Mixed)  # each image with both of its classes
    expected = batch_picture(images, targets, ["dark", "bright"], data.train.settings.statistics)
    assert (picture == expected).all()


def test_a_picture_that_fails_is_a_warning_and_the_run_goes_on(caplog, monkeypatch):
    def fail(*args):
        raise OSError("no font")

    monkeypatch.setattr("iolaus.show.batch.batch_picture", fail)
    state, log, album = LoopState(), Log(), Album()
    train(make_learner(epochs=1), make_data(), state, observers(TrackerList([log])))  # is not even drawn
    assert caplog.messages == []
    train(make_learner(epochs=1), make_data(), LoopState(), observers(TrackerList([album])))
    assert caplog.messages == ["the first batch is not shown: OSError: no font"]
    assert len(album.rows) > 0


def test_hardware_metrics_are_in_the_history_and_logged_at_their_steps():
    log = Log()
    data, learner, state = make_data(), make_learner(epochs=2), LoopState()
    samples = iter([[(1, {"hardware/ram_bytes": 5.0}), (2, {"hardware/ram_bytes": 3.0})], [(4, {})]])
    monitor = SimpleNamespace(drain=lambda: next(samples))
    train(learner, data, state, observers(TrackerList([log]), monitor))
    assert state.history[0]["hardware/ram_bytes"] == 5.0
    assert "hardware/ram_bytes" not in state.history[1]
    logged = [(step, m["hardware/ram_bytes"], "epoch" in m) for step, m in log.rows if "hardware/ram_bytes" in m]
    assert logged == [(1, 5.0, False), (2, 5.0, True)]
    assert state.history[0]["steps_per_second"] == pytest.approx(2 / state.history[0]["seconds"])
