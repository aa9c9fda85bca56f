"""Intervals, numbers of seeds and the luck of a winner, against scipy's tests and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from iolaus.report.significance import Difference, compare_means, expected_maximum, seeds_needed


def draw(n, seed, mean=0.0, scatter=1.0):
    return dict(enumerate((mean + scatter * np.random.default_rng(seed).standard_normal(n)).tolist()))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_common_seeds_are_compared_in_pairs_as_scipy_does(n):
    first, second = draw(n, 1), draw(n, 2, mean=0.5)
    found = compare_means({**first, 98: 7.0}, {**second, 99: -7.0})  # seeds that only one has are left out
    expected = stats.ttest_rel([*first.values()], [*second.values()]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.pairs == n
    assert found.scatter == pytest.approx(np.std(np.subtract([*first.values()], [*second.values()]), ddof=1))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 7), (9, 4)])
def test_other_seeds_are_compared_by_welch_as_scipy_does(n, m):
    first, second = draw(n, 3, scatter=3.0), {100 + seed: value for seed, value in draw(m, 4).items()}
    found = compare_means(first, second)
    expected = stats.ttest_ind([*first.values()], [*second.values()], equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.pairs == 0


def test_pairs_of_equal_differences_tell_nothing_of_scatter_so_welch_is_taken():
    first, second = {0: 0.5, 1: 0.55}, {0: 0.6, 1: 0.65}
    assert compare_means(first, second).pairs == 0
    assert not compare_means(first, second).is_clear


@pytest.mark.parametrize(("first", "second"), [({0: 1.0}, {0: 2.0}), ({0: 1.0, 1: 1.0}, {0: 2.0, 1: 2.0}), ({}, {}),
                                               ({0: math.nan, 1: 1.0}, {0: 1.0, 1: 2.0})])  # fmt: skip
def test_without_scatter_nothing_can_be_told(first, second):
    assert compare_means(first, second) is None


@pytest.mark.parametrize("pairs", [0, 5])
def test_with_the_seeds_that_it_takes_four_in_five_studies_find_the_difference(pairs):
    n = seeds_needed(Difference(mean=0.8, low=-1, high=2, scatter=1.0, pairs=pairs))
    draws = np.random.default_rng(0).standard_normal((20_000, 2, n)) / math.sqrt(2)
    draws[:, 0] += 0.8  # the difference of one run of each has the scatter 1
    test = stats.ttest_rel if pairs else stats.ttest_ind
    assert np.mean(test(draws[:, 0], draws[:, 1], axis=1).pvalue < 0.05) == pytest.approx(0.83, abs=0.035)
    fewer = draws[:, :, : n - 1]
    assert np.mean(test(fewer[:, 0], fewer[:, 1], axis=1).pvalue < 0.05) < 0.805


def test_no_number_of_seeds_finds_a_difference_of_nothing():
    assert seeds_needed(Difference(0.0, -1, 1, 1.0, 0)) is None


@pytest.mark.parametrize(("count", "expected"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi)),
                                                 (10, 1.538753)])  # fmt: skip
def test_the_luckiest_of_equals_is_the_expected_largest_of_normal_numbers(count, expected):
    assert expected_maximum(count) == pytest.approx(expected, abs=1e-6)
