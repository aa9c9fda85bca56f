"""The training loop: read it from top to bottom, every feature is a line.

Nothing here draws from a random state that has to be saved: data order and augmentation are functions of
`(seed, epoch)`, dropout and the like of `(seed, step)`. So a run is its `Learner`'s state dicts and its `State`.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from iolaus.schedules import Schedule, steps_at
from iolaus.seeds import STEP, seed_device, seed_of
from iolaus.stopping import NonFiniteLoss, best_epoch

Metrics = dict[str, float]


@dataclass
class Learner:
    """What is trained, and with what: all that a step needs besides the batch."""

    model: nn.Module
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    evaluation_loss_fn: Callable[[Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    device: torch.device
    precision: str  # fp32, bf16 or fp16
    dtype: torch.dtype | None  # of autocast; None for fp32
    grad_clip_norm: float | None = None

    def __post_init__(self) -> None:
        # Only fp16 has so small a range that gradients need scaling; switched off, it is a no-op.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, self.dtype) if self.dtype else contextlib.nullcontext()

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.scheduler.state_dict(), "scaler": self.scaler.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])


@dataclass
class State:
    """Where a run stands. losses, correct, counts and norms belong to the epoch in progress, one entry for each step.

    counts: images of the step; correct: how many of them were recognised, a share of each where they are mixed.
    """

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    correct: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    history: list[Metrics] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)


def train(
    learner: Learner, data: Any, settings: Any, state: State, *, seed: int,
    should_stop: Callable[[list[Metrics]], bool], objective: str, save: Callable[[], None], tracker: Any,
    progress: Any, interrupted: Callable[[], bool],
) -> None:  # fmt: skip
    """Train from where `state` stands to the last epoch, or to an early stop, or to an interruption.

    data: data.open.Datasets; settings: settings.Trainer; should_stop: a rule over the history; objective: the metric
    of the best epoch; save: called after each epoch, and within one when `interrupted()` says that the run has to
    end. Raises NonFiniteLoss.
    """
    while state.epoch < settings.epochs and not should_stop(state.history) and not interrupted():
        batch_size, steps = steps_at(state.epoch, len(data.train), settings.batch_size, settings.batch_size_schedule,
                                     settings.drop_last)  # fmt: skip
        first_step = state.step - len(state.losses)

        progress.start_epoch(state.epoch, steps, len(state.losses))
        train_epoch(learner, data.train, batch_size, state, settings.log_every, seed, progress, interrupted)
        if len(state.losses) < steps:
            return save()

        lrs = [group["lr"] for group in learner.optimizer.param_groups]  # as they stand at the end of the epoch
        val, val_losses = evaluate(learner, data.val, settings.eval_batch_size)
        images = sum(state.counts)
        metrics = {
            "epoch": state.epoch, "step": state.step,
            "train/loss": finite_mean(state.losses, state.counts), "train/accuracy": sum(state.correct) / images,
            **{f"val/{name}": value for name, value in val.items()},
            "train/grad_norm": finite_mean(state.norms),
            "lr": lrs[0], **{f"lr/{i}": lr for i, lr in enumerate(lrs[1:], 1)},
            "batch_size": batch_size, "seconds": state.seconds,
            "images_per_second": images / state.seconds,
        }  # fmt: skip
        learner.schedule.after_epoch(metrics)
        log_epoch(tracker, metrics, state.losses, val_losses, first_step, settings.log_every)
        state.history.append(metrics)
        progress.end_epoch(metrics, best=best_epoch(state.history, objective) == state.epoch)
        state.epoch, state.losses, state.correct, state.counts, state.norms = state.epoch + 1, [], [], [], []
        state.seconds = 0.0
        save()


def train_epoch(
    learner: Learner, data: Any, batch_size: int, state: State, log_every: int, seed: int, progress: Any,
    interrupted: Callable[[], bool],
) -> None:  # fmt: skip
    """Take the steps of an epoch that are left, or those up to an interruption; `state` gets what they measured."""
    learner.model.train()
    started = time.perf_counter()
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    counts: list[int] = []
    norms: list[Tensor] = []
    done = len(state.losses)
    for images, targets in data.batches(batch_size, state.epoch, train=True, start=done):
        seed_device(seed_of(seed, state.step, STEP), learner.device)
        log_now = (done + len(losses)) % log_every == 0
        loss, hits, norm = train_step(learner, images, targets, want_norm=log_now)
        losses.append(loss)
        correct.append(hits)
        counts.append(len(images))
        if norm is not None:
            norms.append(norm)
        state.step += 1
        if log_now or progress.wants_loss():  # reading a number from a GPU waits for it: not in every step
            progress.step(done + len(losses), check_finite(losses, state, learner))
        else:
            progress.step(done + len(losses), None)
        if interrupted():
            break
    check_finite(losses, state, learner, look_at=len(losses))
    for kept, new in ((state.losses, losses), (state.correct, correct), (state.norms, norms)):
        kept += torch.stack(new).tolist() if new else []  # one transfer for the epoch
    state.counts += counts
    state.seconds += time.perf_counter() - started


def train_step(learner: Learner, images: Tensor, targets: Any, want_norm: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """One optimizer update. Returns loss, number of correct predictions and gradient norm, all on the device."""
    with learner.autocast():
        logits = learner.model(images)
        loss = learner.loss_fn(logits, targets)
    learner.scaler.scale(loss).backward()
    norm = None
    if want_norm or learner.grad_clip_norm:
        learner.scaler.unscale_(learner.optimizer)  # clipping and the logged norm are of the true gradients
        gradients = [p.grad for group in learner.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if learner.grad_clip_norm:
            parameters = [p for group in learner.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, learner.grad_clip_norm, norm)
    scale = learner.scaler.get_scale()
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.optimizer.zero_grad(set_to_none=True)
    if learner.scaler.get_scale() >= scale:  # a smaller scale: this step overflowed and was skipped
        learner.schedule.after_step()
    return loss.detach(), count_correct(logits, targets), norm


def count_correct(logits: Tensor, targets: Any) -> Tensor:
    """How many of a batch are recognised; of a mixed image (augment.mix.Mixed) the share that is of that class."""
    preds = logits.argmax(dim=1)
    if isinstance(targets, tuple):
        targets, partners, share = targets
        return share * (preds == targets).sum() + (1 - share) * (preds == partners).sum()
    return (preds == targets).sum()


@torch.no_grad()
def evaluate(
    learner: Learner, data: Any, batch_size: int, forward: Callable[[nn.Module, Tensor], Tensor] | None = None
) -> tuple[Metrics, list[float]]:
    """Mean loss and accuracy (fractions) over every image of `data` once, and the loss of each batch.

    forward: how logits are made of the model and a batch, where that is not the model's own way (tta.logits).
    """
    learner.model.eval()
    losses, correct, counts = [], [], []
    for images, targets in data.batches(batch_size, epoch=0, train=False):
        with learner.autocast():
            logits = forward(learner.model, images) if forward else learner.model(images)
            losses.append(learner.evaluation_loss_fn(logits, targets))
        correct.append(count_correct(logits, targets))
        counts.append(len(targets))
    batch_losses, hits = torch.stack(losses).tolist(), torch.stack(correct).tolist()
    loss = sum(loss * count for loss, count in zip(batch_losses, counts, strict=True)) / sum(counts)
    return {"loss": loss, "accuracy": sum(hits) / sum(counts)}, batch_losses


def check_finite(losses: list[Tensor], state: State, learner: Learner, look_at: int = 1) -> float:
    """The newest loss as a number. Raises NonFiniteLoss if one of the last `look_at` losses is not finite.

    Under fp16 single overflows are part of the method, since their steps are skipped: there ten in a row raise.
    """
    run_length = 10 if learner.scaler.is_enabled() else 1
    values = torch.stack(losses[-max(look_at, run_length) :]).tolist() if losses else [0.0]
    for i in range(len(values) - run_length + 1):
        if not any(map(math.isfinite, values[i : i + run_length])):
            step, lr = state.step - len(values) + i + 1, learner.optimizer.param_groups[0]["lr"]
            raise NonFiniteLoss(
                f"the training loss is {values[i]} in epoch {state.epoch + 1}, step {step} (lr {lr:g}, "
                f"{learner.precision}); try a lower optimizer.lr, trainer.grad_clip_norm=1 or trainer.precision=fp32"
            )
    return values[-1]


def finite_mean(values: list[float], weights: list[int] | None = None) -> float:
    """Mean without the infinities of fp16 steps that overflowed and were skipped; infinite if there is nothing else."""
    pairs = zip(values, weights or [1] * len(values), strict=True)
    finite = [(value * weight, weight) for value, weight in pairs if math.isfinite(value)]
    return sum(value for value, _ in finite) / sum(weight for _, weight in finite) if finite else math.inf


def log_epoch(
    tracker: Any, metrics: Metrics, losses: list[float], val_losses: list[float], first_step: int, log_every: int
) -> None:
    """Hand an epoch to the trackers: batch losses at their steps, those of validation spread over the epoch's steps."""
    steps = len(losses)
    rows: dict[int, Metrics] = {}
    for i in range(0, steps, log_every):
        rows.setdefault(first_step + i + 1, {})["train/batch_loss"] = losses[i]
    for i, loss in enumerate(val_losses, 1):
        rows.setdefault(first_step + max(1, steps * i // len(val_losses)), {})["val/batch_loss"] = loss
    for step in sorted(rows):
        tracker.log(rows[step], step)
    tracker.log({name: value for name, value in metrics.items() if name != "step"}, first_step + steps)
