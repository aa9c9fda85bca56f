"""What is trained, with what, and how far it is. Both dataclasses give and take state dicts."""

import contextlib
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from iolaus.machine.cuda_graphs import HowToLaunch, launch_each
from iolaus.machine.ranks import ALONE, Alone, running_statistics
from iolaus.methods.ema import ModelEma
from iolaus.methods.fused import lay_out_moments
from iolaus.methods.losses import LossFn, MeanOverImages, is_sum
from iolaus.methods.schedules import Schedule
from iolaus.methods.stopping import NonFiniteLoss
from iolaus.settings import Trainer

Metrics = dict[str, float]
SAVED_STATS = ("losses", "correct", "counts", "norms", "seconds")


@dataclass
class Learner:
    """The model and everything that a step needs besides the batch.

    precision: fp32, bf16 or fp16; dtype: autocast's, None for fp32. seed: the run's. frozen: modules without a trained
    parameter, which stay in evaluation mode. group: the processes that share the run. launch: how a pass over a batch
    comes to the device. forward: the model as training calls it.
    """

    model: nn.Module
    loss_fn: LossFn
    eval_loss_fn: LossFn | MeanOverImages
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    settings: Trainer
    device: torch.device
    precision: str
    dtype: torch.dtype | None
    seed: int = 0
    frozen: Sequence[nn.Module] = ()
    ema: ModelEma | None = None
    group: Alone = ALONE
    launch: HowToLaunch = launch_each

    def __post_init__(self) -> None:
        self.forward = self.model
        # Only fp16 has so small a range that gradients need scaling; switched off, it is a no-op.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @property
    def eval_model(self) -> nn.Module:
        """The weights that are evaluated and kept: the moving average where there is one."""
        return self.ema.model if self.ema else self.model

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters that the optimizer moves."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def join(self, group: Alone) -> None:
        """Begin as rank 0 of the group stands, and take each step together with it."""
        state = group.broadcast(self.state_dict())
        if group.rank > 0:
            self.load_state_dict(state)
        self.group, self.forward = group, group.wrap(self.model)

    def share_statistics(self) -> None:
        """Give every rank the mean of what each has gathered from its part of the batches (BatchNorm)."""
        self.group.average(running_statistics(self.model, self.ema.model if self.ema else None))

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, self.dtype) if self.dtype else contextlib.nullcontext()

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.model.state_dict() if self.ema else None,
        }

    def mean_over_images(self, loss: Tensor, count: int) -> Tensor:
        """The loss of a batch of `count` images as it is shown: a sum over them would depend on the batch size."""
        return loss / count if is_sum(getattr(self.loss_fn, "criterion", None)) else loss

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        lay_out_moments(self.optimizer)
        self.schedule.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.model.load_state_dict(state["ema"])


@dataclass
class EpochStats:
    """What the steps of one epoch measured: numbers on the device as they come, plain ones after `flush`.

    losses: one a step; correct: the number of images recognised in each step, a share of each mixed one; counts: the
    images of each step; norms: gradient norms, of the steps that are logged. seconds: all steps together.
    """

    losses: list[float] = field(default_factory=list)
    correct: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    new_losses: list[Tensor] = field(default_factory=list, init=False)
    new_correct: list[Tensor] = field(default_factory=list, init=False)
    new_norms: list[Tensor] = field(default_factory=list, init=False)

    def add(self, loss: Tensor, correct: Tensor, count: int, norm: Tensor | None) -> None:
        """Take in a step, without a wait for the device."""
        self.new_losses.append(loss)
        self.new_correct.append(correct)
        self.counts.append(count)
        if norm is not None:
            self.new_norms.append(norm)

    def flush(self, group: Alone = ALONE) -> None:
        """Bring the new numbers to the CPU: one transfer of each kind, however many steps there were.

        group: the ranks that have each measured a part of every step.
        """
        for numbers, new, of_part in (
            (self.losses, self.new_losses, True),
            (self.correct, self.new_correct, True),
            (self.norms, self.new_norms, False),
        ):
            if new:
                values = torch.stack(new)
                numbers.extend((group.total(values) if of_part else values).tolist())
            new.clear()

    @property
    def steps(self) -> int:
        return len(self.counts)

    @property
    def images(self) -> int:
        return sum(self.counts)

    @property
    def mean_loss(self) -> float:
        """Mean over the images, see `finite_mean`."""
        return finite_mean(self.losses, self.counts)

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / self.images

    @property
    def mean_norm(self) -> float:
        return finite_mean(self.norms, [1] * len(self.norms))


def finite_mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """Weighted mean of the finite values, infinite if there is none: fp16 steps that overflowed were skipped."""
    finite = [(value * weight, weight) for value, weight in zip(values, weights, strict=True) if math.isfinite(value)]
    return sum(value for value, _ in finite) / sum(weight for _, weight in finite) if finite else math.inf


@dataclass
class LoopState:
    """How far a run is: epochs and steps done, the metrics of each epoch done, and the epoch in progress.

    history only grows: an epoch that is done keeps its metrics.
    """

    epoch: int = 0
    step: int = 0
    history: list[Metrics] = field(default_factory=list)
    stats: EpochStats = field(default_factory=EpochStats)
    lines: list[str] = field(default_factory=list, init=False, repr=False, compare=False)  # the history as JSON

    def state_dict(self) -> dict[str, Any]:
        """The state as plain containers; each epoch of the history is a line of JSON, which keeps every bit.

        torch.save looks at each object by itself: numbers would cost a checkpoint 25 ms after 1,000 epochs, lines 3.
        """
        self.lines += [json.dumps(metrics) for metrics in self.history[len(self.lines) :]]
        stats = {name: getattr(self.stats, name) for name in SAVED_STATS}
        return {"epoch": self.epoch, "step": self.step, "history": [*self.lines], **stats}

    @classmethod
    def from_state_dict(cls, saved: dict[str, Any]) -> "LoopState":
        stats = EpochStats(**{name: saved[name] for name in SAVED_STATS})
        return cls(saved["epoch"], saved["step"], decode_history(saved["history"]), stats)


def decode_history(saved: Sequence[str | Metrics]) -> list[Metrics]:
    """The history of a checkpoint; those of earlier versions hold the metrics themselves."""
    return [json.loads(metrics) if isinstance(metrics, str) else metrics for metrics in saved]


def check_finite(learner: Learner, state: LoopState, last: int) -> float:
    """The newest loss as a number. Raises NonFiniteLoss if one of the `last` new losses is not finite.

    Under fp16 and SAM single overflows are part of the method, since their steps are skipped: ten in a row raise.
    """
    sam_rho = learner.settings.sam_rho
    run_length = 10 if learner.scaler.is_enabled() or sam_rho else 1
    losses = state.stats.new_losses
    newest = losses[-max(last, run_length) :]
    values = learner.group.total(torch.stack(newest)).tolist() if newest else [0.0]
    for i in range(len(values) - run_length + 1):
        if not any(map(math.isfinite, values[i : i + run_length])):
            step, lr = state.step - len(values) + i + 1, learner.optimizer.param_groups[0]["lr"]
            raise NonFiniteLoss(
                f"the training loss is {values[i]} in epoch {state.epoch + 1}, step {step} (lr {lr:g}, "
                f"{learner.precision}); try a lower optimizer.lr, trainer.grad_clip_norm=1 or trainer.precision=fp32"
                + (f", or a trainer.sam_rho below {sam_rho:g}" if sam_rho else "")
            )
    return values[-1]
