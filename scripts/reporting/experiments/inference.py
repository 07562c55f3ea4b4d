"""What a few seeds can tell of two settings: a difference, its interval, and an exact permutation test."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """Of the means of two sets of values, the first minus the second."""

    estimate: float
    low: float  # of Welch's 95 % interval; nan with fewer than two values on a side
    high: float
    p: float  # of the permutation test


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """How far apart the means are; raises ValueError when a side is empty."""
    if not first or not second:
        raise ValueError("a difference needs values on both sides")
    low, high = welch(first, second)
    return Difference(statistics.mean(first) - statistics.mean(second), low, high, permutation_p(first, second))


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Welch's 95 % interval of the difference of two means, whose variances need not be equal."""
    if min(len(first), len(second)) < 2:
        return math.nan, math.nan
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of a mean; nan with fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values) - half, statistics.mean(values) + half


def permutation_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The exact two-sided p-value of the difference of means, over every division of the values into two such sets.

    It assumes only that, where there is no difference, a value could as well have been of the other set. It cannot be
    less than 0.1 with three values against three, or 0.008 with five against five.
    """

    def apart(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        # rounded, so that divisions which are equally far apart are ties
        return np.round(a.mean(axis=axis) - b.mean(axis=axis), 9)

    return float(stats.permutation_test((first, second), apart, vectorized=True, n_resamples=np.inf).pvalue)
