"""A moving average of the weights, which a run with `trainer.ema_decay` evaluates and keeps."""

import copy

import torch
from torch import nn


class ModelEma:
    """Exponential moving average of a model's parameters and buffers (Polyak & Juditsky 1992).

    decay: the weight of the previous average in each step. The first steps use (1 + step) / (10 + step) if that is
    smaller, so that the random initial weights soon fade (TensorFlow's ExponentialMovingAverage with num_updates).
    BatchNorm's running statistics are averaged too; integers, such as its count of batches, are copied.
    model: the average, a copy that is never trained; its state dict is the whole state.
    """

    def __init__(self, live: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(live).requires_grad_(False).eval()
        self.decay = decay
        ours, theirs = ([*model.parameters(), *model.buffers()] for model in (self.model, live))
        pairs = list(zip(ours, theirs, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self.averages, self.values = [a for a, _ in floats], [v for _, v in floats]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.counts, self.live_counts = [c for c, _ in counts], [c for _, c in counts]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, [value.detach() for value in self.values], 1 - decay)
        if self.counts:
            torch._foreach_copy_(self.counts, self.live_counts)
