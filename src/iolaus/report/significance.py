"""Whether the data can tell two configurations apart: confidence intervals, the seeds it takes, a winner's luck."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEVEL, POWER = 0.95, 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Difference:
    """The mean of one configuration minus that of another one, with its confidence interval at LEVEL."""

    mean: float
    low: float
    high: float
    scatter: float  # standard deviation of the difference of two runs, one of each
    pairs: int  # seeds that both have, if these were compared with each other; 0 if not

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def compare_means(first: Mapping[str, float], second: Mapping[str, float]) -> Difference | None:
    """Compare two configurations whose values are given by seed.

    Seeds that both have, at least two, are compared in pairs (paired t interval); else Welch's interval, for unequal
    variances. None where there are fewer than two values on a side, or no scatter from which an interval could come.
    """
    common = [first[seed] - second[seed] for seed in first if seed in second]
    if len(common) > 1 and all(map(math.isfinite, common)):
        mean, scatter = statistics.fmean(common), statistics.stdev(common)
        if scatter > 1e-9 * max(map(abs, common)):  # equal differences, of two seeds say, tell nothing of scatter
            return interval(mean, scatter / math.sqrt(len(common)), len(common) - 1, scatter, len(common))
    sides = [list(side.values()) for side in (first, second)]
    if any(len(values) < 2 or not all(map(math.isfinite, values)) for values in sides):
        return None
    mean = statistics.fmean(sides[0]) - statistics.fmean(sides[1])
    variances = [statistics.variance(values) for values in sides]
    parts = [variance / len(values) for variance, values in zip(variances, sides, strict=True)]
    error = math.sqrt(sum(parts))
    if error <= 1e-12 * max(1.0, abs(mean)):
        return None
    # Welch (1947), Satterthwaite (1946)
    freedom = sum(parts) ** 2 / sum(p**2 / (len(values) - 1) for p, values in zip(parts, sides, strict=True))
    return interval(mean, error, freedom, math.sqrt(sum(variances)), 0)


def interval(mean: float, error: float, freedom: float, scatter: float, pairs: int) -> Difference:
    """The t interval of a mean with this standard error and these degrees of freedom."""
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Difference(mean, mean - half, mean + half, scatter, pairs)


def seeds_needed(difference: Difference) -> int | None:
    """The number of seeds each with which a true difference of this size would be found in 8 of 10 studies.

    The power of the t test against the non-central t distribution; None for more than MOST_SEEDS.
    """
    from scipy.special import nctdtr, stdtrit

    sides = 1 if difference.pairs else 2
    n = np.arange(2, MOST_SEEDS + 1)
    freedom = sides * (n - 1)
    effect = abs(difference.mean) / difference.scatter * np.sqrt(n)
    power = 1 - nctdtr(freedom, np.minimum(effect, 30.0), stdtrit(freedom, (1 + LEVEL) / 2))
    enough = np.flatnonzero(power >= POWER)
    return int(n[enough[0]]) if len(enough) else None


def expected_maximum(count: int) -> float:
    """The expected largest of `count` independent standard normal numbers."""
    from scipy.special import ndtr

    x = np.linspace(-10, 10, 4001)
    density = count * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * ndtr(x) ** (count - 1)
    return float(np.trapezoid(x * density, x))
