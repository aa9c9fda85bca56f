"""What an epoch's steps measured, and what of it a checkpoint holds."""

import copy
import io
import json
import math

import pytest
import torch

from iolaus.learner import EpochStats, LoopState, finite_mean

STEPS = [(0.5, 3.0, 4, 1.5), (0.25, 2.0, 4, None), (1.0, 1.0, 2, 2.5)]  # loss, correct, images, gradient norm


def filled(steps=STEPS) -> EpochStats:
    stats = EpochStats()
    for loss, correct, count, norm in steps:
        stats.add(torch.tensor(loss), torch.tensor(correct), count, None if norm is None else torch.tensor(norm))
    return stats


def test_means_are_over_images_and_the_norms_over_the_logged_steps():
    stats = filled()
    stats.flush()
    assert (stats.steps, stats.images) == (3, 10)
    assert stats.mean_loss == pytest.approx((0.5 * 4 + 0.25 * 4 + 1.0 * 2) / 10)
    assert stats.accuracy == pytest.approx(6 / 10)
    assert stats.mean_norm == 2.0


def test_a_second_flush_adds_only_what_is_new():
    stats = filled()
    stats.flush()
    stats.flush()
    assert stats.losses == [0.5, 0.25, 1.0]
    stats.add(torch.tensor(2.0), torch.tensor(0.0), 2, None)
    assert stats.losses == [0.5, 0.25, 1.0]  # still on the device
    assert stats.steps == 4
    stats.flush()
    assert (stats.losses, stats.norms) == ([0.5, 0.25, 1.0, 2.0], [1.5, 2.5])


def test_a_checkpoint_holds_the_epoch_in_progress_under_its_old_names():
    stats = filled()
    stats.flush()
    stats.seconds = 1.25
    state = LoopState(2, 17, [{"epoch": 0.0}, {"epoch": 1.0}], stats)
    saved = state.state_dict()
    assert set(saved) == {"epoch", "step", "losses", "correct", "counts", "norms", "seconds", "history"}
    again = LoopState.from_state_dict(saved)
    assert again == state
    assert again.stats.mean_loss == stats.mean_loss
    of_an_earlier_version = {**saved, "history": [{"epoch": 0.0}, {"epoch": 1.0}]}
    assert LoopState.from_state_dict(of_an_earlier_version) == state


def test_the_history_comes_back_in_every_bit():
    history = [{"epoch": 3, "train/loss": 0.1 + 0.2, "val/loss": 1e-320, "lr": -0.0, "train/grad_norm": math.inf},
               {"epoch": 4, "train/loss": math.nan}]  # fmt: skip
    buffer = io.BytesIO()
    torch.save(LoopState(4, 9, history).state_dict(), buffer)
    buffer.seek(0)
    again = LoopState.from_state_dict(torch.load(buffer, weights_only=True)).history
    assert repr(again) == repr(history)
    assert type(again[0]["epoch"]) is int


def test_an_epoch_is_put_into_checkpoints_once_however_many_there_are(monkeypatch):
    """Work in proportion to the epochs, not to their square: nothing of an earlier epoch is copied or looked into."""
    encoded, dumps = [], json.dumps
    monkeypatch.setattr(json, "dumps", lambda value: (encoded.append(value), dumps(value))[1])
    monkeypatch.setattr(copy, "deepcopy", lambda *arguments: pytest.fail("a deep copy"))
    state = LoopState()
    for epoch in range(50):
        state.history.append({"epoch": epoch, "val/loss": 1 / (epoch + 1)})
        saved = state.state_dict()
        assert all(type(line) is str for line in saved["history"])
    assert encoded == state.history
    assert LoopState.from_state_dict(saved).history == state.history


@pytest.mark.parametrize(
    ("values", "weights", "mean"),
    [([1.0, 3.0], [3, 1], 1.5), ([1.0, math.inf], [1, 9], 1.0), ([math.nan], [1], math.inf), ([], [], math.inf)],
)
def test_steps_that_overflowed_do_not_count_unless_all_did(values, weights, mean):
    assert finite_mean(values, weights) == mean
