"""Seeded bootstrap over reports: intervals of means, and bounds of paired differences. Numbers only.

The reports are resampled, not the words; the same seed and values give the same bounds on every machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
TABLE_DRAWS = 2_000
"""Draws for the intervals that tables print; a verdict takes `DRAWS`."""
_CHUNK = 4_000_000

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` reports and its bootstrap 95 % interval; NaN throughout when n is 0."""

    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate minus reference over the same `n` reports: the mean, its one-sided 95 % bounds, and the share of draws at or below 0."""

    n: int
    mean: float
    lower: float
    upper: float
    p_not_better: float


def draws(values: Values, count: int, seed: int) -> Values:
    """`count` bootstrap means of `values`, shape (count,). `values` must not be empty."""
    generator = np.random.default_rng(seed)
    size = len(values)
    step = max(1, _CHUNK // size)
    means = np.empty(count)
    for start in range(0, count, step):
        stop = min(count, start + step)
        means[start:stop] = values[generator.integers(0, size, size=(stop - start, size))].mean(axis=1)
    return means


def interval(values: Values, *, seed: int = 0) -> Interval:
    """The mean with its 95 % percentile interval."""
    if not len(values):
        return Interval(0, np.nan, np.nan, np.nan)
    low, high = np.quantile(draws(values, TABLE_DRAWS, seed), (0.025, 0.975))
    return Interval(len(values), float(values.mean()), float(low), float(high))


def difference(candidate: Values, reference: Values, *, seed: int = 0, count: int = DRAWS) -> Difference:
    """The paired bootstrap; both arrays have shape (reports,), the same report at the same place, and are not empty."""
    gaps = candidate - reference
    resampled = draws(gaps, count, seed)
    lower, upper = np.quantile(resampled, (0.05, 0.95))
    return Difference(
        len(gaps), float(gaps.mean()), float(lower), float(upper), float((resampled <= 0).sum() + 1) / (count + 1)
    )
