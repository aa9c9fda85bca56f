"""The training loop: read it from top to bottom, every feature is a line.

Nothing here draws from a random state that has to be saved: data order and augmentation are functions of
`(seed, epoch)`, dropout and the like of `(seed, step)`. So a run is its `Learner`'s state dicts and its `State`.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from iolaus.learner import Learner, Metrics, State
from iolaus.monitor import epoch_means
from iolaus.sam import perturbed
from iolaus.schedules import lr_scale, steps_at
from iolaus.seeds import STEP, seed_device, seed_of
from iolaus.stopping import NonFiniteLoss, best_epoch


def train(
    learner: Learner, data: Any, settings: Any, state: State, *, seed: int,
    should_stop: Callable[[list[Metrics]], bool], objective: str, save: Callable[[], None], tracker: Any,
    progress: Any, interrupted: Callable[[], bool], monitor: Any,
) -> None:  # fmt: skip
    """Train from where `state` stands to the last epoch, or to an early stop, or to an interruption.

    data: data.open.Datasets; settings: settings.Trainer; should_stop: a rule over the history; objective: the metric
    of the best epoch; save: called after each epoch, and within one when `interrupted()` says that the run has to
    end; monitor: monitor.Monitor. Raises NonFiniteLoss.
    """
    while state.epoch < settings.epochs and not should_stop(state.history) and not interrupted():
        batch_size, steps = steps_at(state.epoch, len(data.train), settings.batch_size, settings.batch_size_schedule,
                                     settings.drop_last)  # fmt: skip
        first_step = state.step - len(state.losses)
        learner.schedule.scale = lr_scale(batch_size, settings.batch_size, settings.scale_lr_with_batch)

        progress.start_epoch(state.epoch, steps, len(state.losses))
        train_epoch(learner, data.train, batch_size, state, settings.log_every, seed, progress, interrupted)
        if len(state.losses) < steps:
            return save()

        lrs = [group["lr"] for group in learner.optimizer.param_groups]  # those of the epoch's last step
        val, val_losses = evaluate(learner, data.val, settings.eval_batch_size)
        images, samples = sum(state.counts), monitor.drain()
        metrics = {
            "epoch": state.epoch, "step": state.step,
            "train/loss": finite_mean(state.losses, state.counts), "train/accuracy": sum(state.correct) / images,
            **{f"val/{name}": value for name, value in val.items()},
            "train/grad_norm": finite_mean(state.norms),
            "lr": lrs[0], **{f"lr/{i}": lr for i, lr in enumerate(lrs[1:], 1)},
            "batch_size": batch_size, "seconds": state.seconds,
            "images_per_second": images / state.seconds, "steps_per_second": steps / state.seconds,
            **epoch_means(samples),
        }  # fmt: skip
        learner.schedule.after_epoch(metrics)
        log_epoch(tracker, metrics, state.losses, val_losses, samples, first_step, settings.log_every)
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
    for module in learner.frozen:  # a frozen BatchNorm keeps its statistics, too
        module.eval()
    started = time.perf_counter()
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    counts: list[int] = []
    norms: list[Tensor] = []
    done = len(state.losses)
    for images, targets in data.batches(batch_size, state.epoch, train=True, start=done):
        log_now = (done + len(losses)) % log_every == 0
        learner.schedule.before_step(state.step)
        loss, hits, norm = train_step(learner, images, targets, seed_of(seed, state.step, STEP), want_norm=log_now)
        losses.append(loss)
        correct.append(hits)
        counts.append(len(images))
        if norm is not None:
            norms.append(norm)
        state.step += 1
        if learner.average:
            learner.average.update(state.step)
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


def train_step(
    learner: Learner, images: Tensor, targets: Any, seed: int, want_norm: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One optimizer update. Returns loss, number of correct predictions and gradient norm, all on the device.

    Under SAM the loss and the predictions are those of the first pass, at the weights themselves.
    """
    loss, hits = backward(learner, images, targets, seed)
    if learner.sam_rho:
        with perturbed(learner.model, learner.sam_rho, learner.sam_adaptive):
            backward(learner, images, targets, seed)
    norm, skipped = None, False
    if want_norm or learner.grad_clip_norm or learner.sam_rho:
        learner.scaler.unscale_(learner.optimizer)  # clipping and the logged norm are of the true gradients
        parameters = [p for group in learner.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if learner.grad_clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, learner.grad_clip_norm, norm)
    if learner.sam_rho and not learner.scaler.is_enabled():  # whose own business it is otherwise
        skipped = not norm.isfinite()  # type: ignore[union-attr]  # waits for a GPU: the climb may leave the finite
        loss = torch.where(norm.isfinite(), loss, torch.nan)  # type: ignore[union-attr]
    scale = learner.scaler.get_scale()
    if not skipped:
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()
    learner.optimizer.zero_grad(set_to_none=True)
    if not skipped and learner.scaler.get_scale() >= scale:  # a smaller scale: this step overflowed and was skipped
        learner.schedule.after_step()
    return loss, hits, norm


def backward(learner: Learner, images: Tensor, targets: Any, seed: int) -> tuple[Tensor, Tensor]:
    """Add the gradient of a batch's loss to the parameters' .grad. Returns the loss and the number of correct ones.

    A batch of more than `micro_batch_size` images goes through the model in parts, whose gradients add up to its own.
    """
    seed_device(seed, learner.device)  # so that both passes of SAM drop the same activations
    loss: Any = 0.0
    hits: Any = 0.0
    for part, part_targets in split(images, targets, learner.micro_batch_size or len(images)):
        with learner.autocast():
            logits = learner.model(part)
            part_loss = learner.loss_fn(logits, part_targets)
            if len(part) < len(images):
                part_loss = part_loss * (len(part) / len(images))
        learner.scaler.scale(part_loss).backward()
        loss, hits = loss + part_loss.detach(), hits + count_correct(logits, part_targets)
    return loss, hits


def split(images: Tensor, targets: Any, size: int) -> Iterator[tuple[Tensor, Any]]:
    """The parts of a batch, of `size` images each but the last; of mixed targets (augment.mix.Mixed), too."""
    if size >= len(images):
        yield images, targets
        return
    for first in range(0, len(images), size):
        part = slice(first, first + size)
        if isinstance(targets, tuple):
            yield images[part], type(targets)(*(t[part] if isinstance(t, Tensor) else t for t in targets))
        else:
            yield images[part], targets[part]


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
    model = learner.evaluated.eval()
    losses, correct, counts = [], [], []
    for images, targets in data.batches(batch_size, epoch=0, train=False):
        with learner.autocast():
            logits = forward(model, images) if forward else model(images)
            losses.append(learner.evaluation_loss_fn(logits, targets))
        correct.append(count_correct(logits, targets))
        counts.append(len(targets))
    batch_losses, hits = torch.stack(losses).tolist(), torch.stack(correct).tolist()
    loss = sum(loss * count for loss, count in zip(batch_losses, counts, strict=True)) / sum(counts)
    return {"loss": loss, "accuracy": sum(hits) / sum(counts)}, batch_losses


def check_finite(losses: list[Tensor], state: State, learner: Learner, look_at: int = 1) -> float:
    """The newest loss as a number. Raises NonFiniteLoss if one of the last `look_at` losses is not finite.

    Under fp16 and SAM single overflows are part of the method, since their steps are skipped: ten in a row raise.
    """
    run_length = 10 if learner.scaler.is_enabled() or learner.sam_rho else 1
    values = torch.stack(losses[-max(look_at, run_length) :]).tolist() if losses else [0.0]
    for i in range(len(values) - run_length + 1):
        if not any(map(math.isfinite, values[i : i + run_length])):
            step, lr = state.step - len(values) + i + 1, learner.optimizer.param_groups[0]["lr"]
            raise NonFiniteLoss(
                f"the training loss is {values[i]} in epoch {state.epoch + 1}, step {step} (lr {lr:g}, "
                f"{learner.precision}); try a lower optimizer.lr, trainer.grad_clip_norm=1 or trainer.precision=fp32"
                + (f", or a trainer.sam_rho below {learner.sam_rho:g}" if learner.sam_rho else "")
            )
    return values[-1]


def finite_mean(values: list[float], weights: list[int] | None = None) -> float:
    """Mean without the infinities of fp16 steps that overflowed and were skipped; infinite if there is nothing else."""
    pairs = zip(values, weights or [1] * len(values), strict=True)
    finite = [(value * weight, weight) for value, weight in pairs if math.isfinite(value)]
    return sum(value for value, _ in finite) / sum(weight for _, weight in finite) if finite else math.inf


def log_epoch(
    tracker: Any, metrics: Metrics, losses: list[float], val_losses: list[float], samples: list[tuple[int, Metrics]],
    first_step: int, log_every: int,
) -> None:  # fmt: skip
    """Hand an epoch to the trackers: batch losses and what the hardware did at their steps, the losses of validation
    spread over the epoch's steps."""
    steps = len(losses)
    rows: dict[int, Metrics] = {}
    for i in range(0, steps, log_every):
        rows.setdefault(first_step + i + 1, {})["train/batch_loss"] = losses[i]
    for i, loss in enumerate(val_losses, 1):
        rows.setdefault(first_step + max(1, steps * i // len(val_losses)), {})["val/batch_loss"] = loss
    for step, sample in samples:
        if step < first_step + steps:  # there the epoch's own numbers stand
            rows.setdefault(step, {}).update(sample)
    for step in sorted(rows):
        tracker.log(rows[step], step)
    tracker.log({name: value for name, value in metrics.items() if name != "step"}, first_step + steps)
