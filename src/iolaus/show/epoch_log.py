"""What the trackers get of an epoch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iolaus.learner import Metrics
    from iolaus.show.trackers import Tracker

    Samples = list[tuple[int, Metrics]]  # of the hardware, each with its step


def log_epoch(
    tracker: "Tracker",
    metrics: "Metrics",
    losses: list[float],
    val_losses: list[float],
    samples: "Samples",
    log_every: int,
) -> None:
    """Hand an epoch to the trackers: batch losses, hardware samples at their steps, and the epoch's own metrics.

    The losses of validation are spread over the epoch's steps.
    """
    steps, last_step = len(losses), int(metrics["step"])
    first_step = last_step - steps
    rows: dict[int, Metrics] = {}
    for i in range(0, steps, log_every):
        rows.setdefault(first_step + i + 1, {})["train/batch_loss"] = losses[i]
    for i, loss in enumerate(val_losses, 1):
        rows.setdefault(first_step + max(1, steps * i // len(val_losses)), {})["val/batch_loss"] = loss
    for step, sample in samples:
        if step < last_step:  # the last step has the epoch's own numbers
            rows.setdefault(step, {}).update(sample)
    for step in sorted(rows):
        tracker.log(rows[step], step)
    tracker.log({name: value for name, value in metrics.items() if name != "step"}, last_step)
