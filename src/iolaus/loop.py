"""The training loop: read it from top to bottom, every feature is a line.

Nothing here draws from a random state that has to be saved: data order and augmentation are functions of
`(seed, epoch)`, dropout and the like of `(seed, step)`. So a run is its `Learner`'s state dicts and its `LoopState`.
"""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from iolaus.augment.mix import Targets, count_correct
from iolaus.learner import EpochStats, Learner, LoopState, Metrics, check_finite
from iolaus.machine.monitor import Monitor, epoch_means
from iolaus.machine.signals import PAUSE
from iolaus.methods.metrics import ClassCounts
from iolaus.methods.sam import perturb_weights
from iolaus.methods.schedules import lr_scale, part_bounds, steps_at
from iolaus.methods.skipping import step_or_skip
from iolaus.methods.stopping import best_epoch
from iolaus.seeds import STEP, seed_device, seed_of
from iolaus.show.batch import show_batch
from iolaus.show.epoch_log import log_epoch

if TYPE_CHECKING:
    from iolaus.data.epoch import Batches
    from iolaus.data.open import Datasets
    from iolaus.show.progress import AnyProgress
    from iolaus.show.trackers import TrackerList

Asked = Callable[[], int]  # at every step
Forward = Callable[[nn.Module, Tensor], Tensor]


@dataclass
class Observers:
    """Those who look on while a run trains; nothing that they do changes what is computed."""

    tracker: "TrackerList"
    progress: "AnyProgress"
    monitor: Monitor


def train(
    learner: Learner,
    data: "Datasets",
    state: LoopState,
    observers: Observers,
    objective: str,
    should_stop: Callable[[list[Metrics]], bool],
    interrupted: Asked,
    save: Callable[[], None],
) -> int:
    """Train from where `state` stands to the last epoch, or to an early stop, or to an interruption.

    objective: the metric that picks the best epoch. should_stop: a rule over the history. interrupted: the signal after
    which the run has to end with the step at hand, PAUSE if it is to be saved there and to go on, or 0. save: called
    after each epoch, and within one that is interrupted. Returns the signal that has ended it, or 0. Raises
    NonFiniteLoss.
    """
    settings, progress, group = learner.settings, observers.progress, learner.group
    while state.epoch < settings.epochs and not group.broadcast(should_stop(state.history)):
        if (number := interrupted()) > PAUSE:
            return number
        batch_size, steps = steps_at(
            state.epoch, len(data.train), settings.batch_size, settings.batch_size_schedule, settings.drop_last
        )
        initial = min(settings.batch_size, len(data.train))  # a batch is never larger than the data
        learner.schedule.scale = lr_scale(batch_size, initial, settings.scale_lr_with_batch)

        progress.start_epoch(state.epoch, steps, state.stats.steps)
        given = learner, data.train, batch_size, state, observers, interrupted
        while (number := train_epoch(*given)) == PAUSE and state.stats.steps < steps:
            save()
        if state.stats.steps < steps:
            save()
            return number

        stats, lrs = state.stats, [group["lr"] for group in learner.optimizer.param_groups]  # of the epoch's last step
        val, val_losses = evaluate(learner, data.val, settings.eval_batch_size)
        samples = observers.monitor.drain()
        metrics = {
            "epoch": state.epoch,
            "step": state.step,
            "train/loss": stats.mean_loss,
            "train/accuracy": stats.accuracy,
            **{f"val/{name}": value for name, value in val.items()},
            "train/grad_norm": stats.mean_norm,
            "lr": lrs[0],
            **{f"lr/{i}": lr for i, lr in enumerate(lrs[1:], 1)},
            "batch_size": batch_size,
            "seconds": stats.seconds,
            "images_per_second": stats.images / stats.seconds,
            "steps_per_second": steps / stats.seconds,
            **epoch_means(samples),
        }
        metrics = group.broadcast(metrics)  # the times are rank 0's
        learner.schedule.after_epoch(metrics)
        log_epoch(observers.tracker, metrics, stats.losses, val_losses, samples, settings.log_every)
        state.history.append(metrics)
        progress.end_epoch(metrics, best=best_epoch(state.history, objective) == state.epoch)
        state.epoch, state.stats = state.epoch + 1, EpochStats()
        save()
    return 0


def train_epoch(
    learner: Learner, data: "Batches", batch_size: int, state: LoopState, observers: Observers, interrupted: Asked
) -> int:
    """Take the steps of an epoch that are left, or those up to an interruption; `state` gets what they measured.

    Returns what has interrupted it, or 0.
    """
    learner.model.train()
    for module in learner.frozen:  # a frozen BatchNorm keeps its statistics, too
        module.eval()
    started, stats, progress, group, number = time.perf_counter(), state.stats, observers.progress, learner.group, 0
    for images, targets in data.batches(batch_size, state.epoch, train=True, start=stats.steps, group=group):
        count = group.count_images(len(images), min(batch_size, len(data) - stats.steps * batch_size))
        log_now = stats.steps % learner.settings.log_every == 0
        show_batch(observers.tracker, images, targets, data.settings, state.step)  # of step 0
        loss, correct, norm = train_step(learner, images, targets, state.step, log_now, count)
        stats.add(learner.mean_over_images(loss, count), correct, count, norm)
        state.step += 1
        if learner.ema:
            learner.ema.update(state.step)
        # reading a number from a GPU waits for it: not in every step; ranks read together, not by their clocks
        reads = log_now or (group.world == 1 and progress.wants_loss())
        progress.step(stats.steps, check_finite(learner, state, last=1) if reads else None)
        if number := interrupted():
            break
    check_finite(learner, state, last=len(stats.new_losses))
    stats.flush(group)
    learner.share_statistics()
    stats.seconds += time.perf_counter() - started
    return number


def train_step(
    learner: Learner, images: Tensor, targets: Targets, step: int, want_norm: bool, count: int | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One optimizer update, at the step's rates. Returns loss, number of correct predictions and gradient norm.

    All of them are on the device. count: the images of the whole batch if these are one rank's part of it, whose share
    of the loss is returned.

    Under SAM the loss and the predictions are those of the first pass, at the weights themselves.
    """
    settings, scaler = learner.settings, learner.scaler
    loss, correct = backward(learner, images, targets, step, count)
    if settings.sam_rho:
        with perturb_weights(learner.model, settings.sam_rho, settings.sam_adaptive):
            backward(learner, images, targets, step, count)
    norm, overflow = None, None
    if want_norm or settings.grad_clip_norm or settings.sam_rho:
        scaler.unscale_(learner.optimizer)  # clipping and the logged norm are of the true gradients
        parameters = learner.parameters
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if settings.grad_clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, settings.grad_clip_norm, norm)
        if settings.sam_rho and not scaler.is_enabled():  # an enabled scaler skips such a step by itself
            overflow = ~norm.isfinite()  # at the perturbed weights it happens
            loss = torch.where(overflow, torch.nan, loss)
    # Here, and not before the gradient: whether the step before was skipped is then known without an idle GPU.
    learner.schedule.before_step(step)
    skipped = step_or_skip(learner.optimizer, scaler, overflow)
    learner.optimizer.zero_grad(set_to_none=True)
    learner.schedule.after_step(skipped)
    return loss, correct, norm


def backward(
    learner: Learner, images: Tensor, targets: Targets, step: int, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """Seed what a step draws, and add the gradient of a batch's loss to the parameters' .grad (see add_gradient)."""
    # SAM's second pass drops the same activations as the first; each rank drops its own
    seed, rank = seed_of(learner.seed, step, STEP), learner.group.rank
    seed_device(seed_of(seed, rank, STEP) if rank else seed, learner.device)
    run = functools.partial(add_gradient, learner, count=count or len(images))
    return learner.launch(run, images, targets)


def add_gradient(learner: Learner, images: Tensor, targets: Targets, count: int) -> tuple[Tensor, Tensor]:
    """Add the gradient of a batch's loss to the parameters' .grad. Returns the loss and the number of correct ones.

    A batch of more than `micro_batch_size` images goes through the model in parts, whose gradients add up to its own,
    as those of several ranks do. count: see train_step. Reads no number from the device: a CUDA graph may replay it.
    """
    group, micro_batch_size = learner.group, learner.settings.micro_batch_size or len(images)
    losses, correct, done = [], [], 0
    copies = group.copies(count)
    for part, part_targets in split(images, targets, micro_batch_size):
        done += len(part)
        group.reduce_gradients(now=done == len(images))
        with learner.autocast():
            logits = learner.forward(part)
            whole = (targets,) if len(part) < len(images) else ()
            loss = learner.loss_fn(logits, part_targets, *whole)
            if len(images) < count * copies:
                loss = loss * (len(images) / (count * copies))
        learner.scaler.scale(group.undo_mean(loss)).backward()
        losses.append(loss.detach())
        hits = count_correct(logits, part_targets)
        correct.append(hits / copies if copies > 1 else hits)
    return sum(losses[1:], losses[0]), sum(correct[1:], correct[0])


def split(images: Tensor, targets: Targets, size: int) -> Iterator[tuple[Tensor, Targets]]:
    """The parts of a batch: `size` images each, the last one what is left (see part_bounds)."""
    for first, last in part_bounds(len(images), size):
        yield (images, targets) if last - first == len(images) else (images[first:last], targets[first:last])


@torch.no_grad()
def evaluate(
    learner: Learner, data: "Batches", batch_size: int, forward: Forward | None = None
) -> tuple[Metrics, list[float]]:
    """Mean loss, accuracy and methods/metrics.py's figures over every image of `data` once, and each batch's loss.

    forward: logits from the model and a batch, where that is not the model's own way (tta.average_logits).
    """
    model, stats, counts = learner.eval_model.eval(), EpochStats(), ClassCounts()
    for images, targets in data.batches(batch_size, epoch=0, train=False, group=learner.group):
        with learner.autocast():
            logits = forward(model, images) if forward else model(images)
            loss = learner.eval_loss_fn(logits, targets)
        stats.add(loss, count_correct(logits, targets), len(images), None)
        counts.add(logits, targets)
    stats.flush()
    rows = learner.group.merge(list(zip(stats.losses, stats.correct, stats.counts, strict=True)))
    images_seen = sum(count for _, _, count in rows)
    loss_sum, hits = sum(loss * count for loss, _, count in rows), sum(correct for _, correct, _ in rows)
    means = {"loss": loss_sum / images_seen, "accuracy": hits / images_seen}
    return means | counts.metrics(learner.group), [loss for loss, _, _ in rows]
