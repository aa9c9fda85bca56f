"""Seeds of (seed, count, stream) are all different, look random, and repeat what they seed."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from iolaus.seeds import ORDER, STEP, WEIGHTS, seed_device, seed_of

STREAMS = (ORDER, STEP, WEIGHTS)


def test_seeds_of_a_grid_are_distinct_and_fit_into_63_bits():
    grid = [*range(30), 1234, 2**31, 2**32 - 1, 2**40]
    seeds = [seed_of(*point) for point in itertools.product(grid, grid, STREAMS)]
    assert len(set(seeds)) == len(seeds) == len(grid) ** 2 * 3
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(st.integers(0, 2**63), st.integers(0, 2**63))
@settings(max_examples=50, deadline=None, database=None)
def test_neighbouring_seeds_and_counts_never_collide(seed, count):
    points = itertools.product(range(seed, seed + 6), range(count, count + 6), range(6))
    assert len({seed_of(*point) for point in points}) == 6 * 6 * 6


def test_seed_and_epoch_are_not_interchangeable():
    assert seed_of(1, 2, STEP) != seed_of(2, 1, STEP)
    assert len({seed_of(0, 0, stream) for stream in STREAMS} | {0}) == 4


def test_every_bit_is_set_in_half_of_the_seeds():
    seeds = [seed_of(seed, step, STEP) for seed in range(40) for step in range(100)]
    shares = [sum(seed >> bit & 1 for seed in seeds) / len(seeds) for bit in range(63)]
    assert all(abs(share - 0.5) < 0.04 for share in shares)  # 5 standard deviations of 4,000 coins


def test_the_next_step_changes_half_of_the_bits():
    seeds = [seed_of(0, step, STEP) for step in range(1000)]
    changes = [(one ^ other).bit_count() for one, other in itertools.pairwise(seeds)]
    assert 31 < sum(changes) / len(changes) < 32
    assert min(changes) > 10


def test_the_seeds_stay_what_they_are():
    """A resumed run has to draw what the run before drew, also under a later version."""
    seeds = seed_of(0, 0, ORDER), seed_of(0, 1, STEP), seed_of(7, 3, WEIGHTS)
    assert seeds == (1279368494785126216, 2533777038635110281, 334283646672543036)


def test_a_seeded_device_draws_the_same_dropout_masks_and_weights_again():
    cpu, ones, dropout = torch.device("cpu"), torch.ones(200), nn.Dropout(0.5)

    def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        seed_device(seed_of(0, step, STEP), cpu)
        return dropout(ones), nn.Linear(4, 4).weight.detach()

    first, other, again = draw(3), draw(4), draw(3)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_seeded_as_torch_seeds_it():
    seed_device(7, torch.device("cuda"))
    ours = torch.rand(9, device="cuda")
    torch.cuda.manual_seed(7)
    assert torch.equal(ours, torch.rand(9, device="cuda"))
