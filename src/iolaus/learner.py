"""What a run is while it trains: its parts, and where it stands. Both give and take state dicts."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from iolaus.schedules import Schedule

Metrics = dict[str, float]


@dataclass
class Learner:
    """What is trained, and with what: all that a step needs besides the batch.

    frozen: modules without a trained parameter, which stay as in evaluation; average: ema.Average, or None.
    """

    model: nn.Module
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    evaluation_loss_fn: Callable[[Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    device: torch.device
    precision: str  # fp32, bf16 or fp16
    dtype: torch.dtype | None  # of autocast; None for fp32
    grad_clip_norm: float | None = None
    micro_batch_size: int | None = None
    sam_rho: float | None = None
    sam_adaptive: bool = False
    frozen: Sequence[nn.Module] = ()
    average: Any = None

    def __post_init__(self) -> None:
        # Only fp16 has so small a range that gradients need scaling; switched off, it is a no-op.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the average where there is one."""
        return self.average.model if self.average else self.model

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, self.dtype) if self.dtype else contextlib.nullcontext()

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict(), "scaler": self.scaler.state_dict(),
            "ema": self.average.model.state_dict() if self.average else None,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.model.load_state_dict(state["ema"])


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
