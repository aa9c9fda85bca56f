"""The learning rates of a whole run before it trains, and the range test that finds one (Smith 2017)."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from iolaus import loop
from iolaus.augment.mix import Targets
from iolaus.data.epoch import Batches
from iolaus.errors import ConfigError
from iolaus.learner import Learner
from iolaus.methods.schedules import Schedule, lr_scale, stand_in, steps_at

LOWEST, HIGHEST = 1e-6, 10.0  # the rates of the range test
SMOOTHING = 0.9  # of the loss from batch to batch
FAR_ABOVE = 4.0  # times the lowest smoothed loss: the test has seen enough


def planned_rates(learner: Learner, count: int) -> list[tuple[float, float]]:
    """(epoch, learning rate) of every step over `count` training images: epochs are fractions, counted from 1.

    A plateau waits for what the run measures, and stays. The schedule is put back to where it was.
    """
    settings, schedule, points, step = learner.settings, learner.schedule, [], 0
    before = copy.deepcopy(schedule.state_dict())
    for epoch in range(settings.epochs):
        given = (count, settings.batch_size, settings.batch_size_schedule, settings.drop_last)
        batch_size, steps = steps_at(epoch, *given)
        schedule.scale = lr_scale(batch_size, settings.batch_size, settings.scale_lr_with_batch)
        for place in range(steps):
            schedule.before_step(step)
            points.append((epoch + 1 + place / steps, learner.optimizer.param_groups[0]["lr"]))
            schedule.after_step()
            step += 1
        if schedule.monitor is None:
            schedule.after_epoch({})
    schedule.load_state_dict(before)
    return points


@dataclass(frozen=True)
class RangeTest:
    """What a learning-rate range test saw. losses: smoothed, one for each of `rates`."""

    rates: list[float]
    losses: list[float]

    @property
    def lowest(self) -> float:
        """The rate with the lowest loss."""
        return self.rates[min(range(len(self.losses)), key=self.losses.__getitem__)]

    @property
    def suggestion(self) -> float:
        """A tenth of the rate with the lowest loss, in one digit: where the loss falls fast and nothing diverges."""
        return float(f"{self.lowest / 10:.0e}")


def find_range(learner: Learner, data: Batches, steps: int) -> RangeTest:
    """Train while the rate grows from LOWEST to HIGHEST by one factor each step (Smith 2017, section 3.3).

    It ends early where the loss is far above its lowest, or not finite. The losses are averaged with weights that fall
    by SMOOTHING from step to step, unbiased. Every group of parameters keeps its share of the rate. This trains the
    learner. Raises ConfigError where the loss is not finite from the start.
    """
    base = learner.optimizer.defaults["lr"]
    ratio = (HIGHEST / LOWEST) ** (1 / max(1, steps - 1))
    if not base:
        raise ConfigError("optimizer.lr=0: the range test needs a rate above 0 to start from")
    scheduler = LambdaLR(stand_in(learner.optimizer), lambda step: LOWEST / base * ratio**step)
    learner.schedule = Schedule(scheduler, learner.optimizer, interval="step")
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    learner.model.train()
    for step, (images, targets) in zip(range(steps), endless_batches(data, learner.settings.batch_size), strict=False):
        loss, _, _ = loop.train_step(learner, images, targets, step, want_norm=False)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss.item()
        smooth = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smooth) or (losses and smooth > FAR_ABOVE * min(losses)):
            break
        rates.append(LOWEST * ratio**step)
        losses.append(smooth)
    if len(losses) < 10:
        raise ConfigError(f"lr-range: the loss is not finite after {len(losses)} steps, with rates up to {rates[-1:]}")
    return RangeTest(rates, losses)


def endless_batches(data: Batches, batch_size: int) -> Iterator[tuple[Tensor, Targets]]:
    """Training batches, epoch after epoch."""
    epoch = 0
    while True:
        yield from data.batches(min(batch_size, len(data)), epoch, train=True)
        epoch += 1
