"""Early stopping and the best epoch are functions of the history alone."""

import math
import random

import pytest

from iolaus.methods.stopping import Patience, best_epoch, mode_of


def history(metric: str, values: list[float]) -> list[dict[str, float]]:
    return [{metric: value} for value in values]


def stops_at(rule: Patience, values: list[float]) -> int | None:
    """The number of epochs after which a run with these values stops."""
    epochs = history(rule.monitor, values)
    return next((n for n in range(len(values) + 1) if rule.should_stop(epochs[:n])), None)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val/accuracy", "max"), ("train/accuracy", "max"), ("val/loss", "min"), ("train/loss", "min")],
)
def test_accuracies_are_better_when_larger_and_losses_when_smaller(metric, mode):
    assert mode_of(metric) == mode


STOPS = {
    "better all along": (Patience("val/loss", patience=2), [5, 4, 3, 2, 1], None),
    "two epochs without a better one": (Patience("val/loss", patience=2), [5, 4, 4, 4, 1], 4),
    "equal is not better": (Patience("val/loss", patience=1), [5, 5], 2),
    "a better epoch starts the count again": (Patience("val/loss", patience=2), [5, 6, 4, 6, 3, 6, 6], 7),
    "the first epoch is better than none": (Patience("val/loss", patience=1), [5], None),
    "large losses that fall": (Patience("val/loss", patience=1), [1e30, 1e29, 1e28], None),
    "accuracy grows": (Patience("val/accuracy", patience=2), [0.1, 0.2, 0.3, 0.4], None),
    "accuracy falls": (Patience("val/accuracy", patience=2), [0.4, 0.3, 0.2, 0.1], 3),
    "mode wins over the name: max": (Patience("val/loss", patience=2, mode="max"), [1, 2, 3, 4], None),
    "mode wins over the name: min": (Patience("val/accuracy", patience=2, mode="min"), [0.1, 0.2, 0.3], 3),
    "a gain below min_delta is none": (Patience("val/loss", patience=2, min_delta=0.5), [5, 4.75, 4.5, 1], 3),
    "gains below min_delta add up": (Patience("val/loss", patience=3, min_delta=0.5), [5, 4.75, 4.25, 4, 3.5], None),
    "min_delta of a maximum": (Patience("val/accuracy", patience=1, min_delta=0.25), [0.25, 0.5, 0.75], 2),
    "never a number": (Patience("val/loss", patience=3), [math.nan] * 5, 3),
    "a number after none": (Patience("val/loss", patience=2), [math.nan, 5, math.inf, 4, 5, 5], 6),
}


@pytest.mark.parametrize(("rule", "values", "epochs"), STOPS.values(), ids=STOPS.keys())
def test_patience_stops_after_exactly_this_many_epochs(rule, values, epochs):
    assert stops_at(rule, values) == epochs


class Textbook:
    """Early stopping with a state, as most libraries have it."""

    def __init__(self, mode: str, patience: int, min_delta: float) -> None:
        self.mode, self.patience, self.min_delta = mode, patience, min_delta
        self.best, self.waited = (math.inf if mode == "min" else -math.inf), 0

    def update(self, value: float) -> bool:
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.patience


def test_patience_equals_a_textbook_implementation_on_random_histories():
    draw = random.Random(0)
    for _ in range(200):
        mode, patience, min_delta = draw.choice(["min", "max"]), draw.randint(1, 4), draw.choice([0.0, 0.125, 1.0])
        odd = (math.nan, math.inf, -math.inf)
        values = [draw.choice([draw.randrange(16) / 8, draw.random(), *odd]) for _ in range(12)]
        textbook = Textbook(mode, patience, min_delta)
        stop = next((n for n, value in enumerate(values, 1) if textbook.update(value)), None)

        assert stops_at(Patience("train/loss", patience, min_delta, mode), values) == stop, values


def test_a_rule_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="patience=0: must be 1 or more"):
        Patience(patience=0)
    with pytest.raises(ValueError, match=r"min_delta=-0\.1: must be 0 or more"):
        Patience(min_delta=-0.1)


NAN, INF = math.nan, math.inf
BEST = {  # metric, (accuracy, loss) of each epoch, the best one
    "largest accuracy": ("val/accuracy", [(0.1, 1), (0.9, 3), (0.5, 2)], 1),
    "smallest loss": ("val/loss", [(0.1, 3), (0.9, 2), (0.5, 1)], 2),
    "of equal accuracies the lowest loss": ("val/accuracy", [(0.9, 3), (0.9, 1), (0.9, 2)], 1),
    "of equals the first": ("val/accuracy", [(0.1, 1), (0.9, 2), (0.9, 2)], 1),
    "of equal losses the first": ("val/loss", [(0.1, 1), (0.9, 1)], 0),
    "not a number is never best": ("val/loss", [(0.5, NAN), (0.1, 9)], 1),
    "nor is minus infinity": ("val/loss", [(0.5, -INF), (0.1, 9)], 1),
    "nor the accuracy of a diverged epoch": ("val/accuracy", [(0.9, NAN), (0.1, 9), (0.9, INF)], 1),
    "all diverged: the first": ("val/accuracy", [(0.1, NAN), (0.9, NAN)], 0),
    "no epoch": ("val/loss", [], None),
}


@pytest.mark.parametrize(("metric", "epochs", "best"), BEST.values(), ids=BEST.keys())
def test_the_best_epoch_is_this_one(metric, epochs, best):
    assert best_epoch([{"val/accuracy": accuracy, "val/loss": loss} for accuracy, loss in epochs], metric) == best


def test_ties_are_broken_by_the_loss_of_the_same_split():
    epochs = [
        {"train/accuracy": 1.0, "train/loss": 0.2, "val/loss": 0.1},
        {"train/accuracy": 1.0, "train/loss": 0.1, "val/loss": 0.2},
    ]
    assert best_epoch(epochs, "train/accuracy") == 1
