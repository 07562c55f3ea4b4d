"""What the report says of a few seeds."""

import itertools
import math
import statistics

import pytest

from scripts.reporting.experiments.inference import difference, mean_interval, permutation_p, welch


def test_a_permutation_test_counts_every_division_of_the_values():
    first, second = [80.9, 81.2, 80.4, 81.0], [80.6, 79.9, 80.5, 80.2, 80.7]
    observed = abs(statistics.mean(first) - statistics.mean(second))
    values = first + second
    divisions = list(itertools.combinations(range(len(values)), len(first)))
    # one-sided tails of the larger side, doubled: what "two-sided" means where the sizes differ
    means = [
        statistics.mean(values[i] for i in chosen) - statistics.mean(v for i, v in enumerate(values) if i not in chosen)
        for chosen in divisions
    ]
    assert permutation_p(first, second) == pytest.approx(2 * sum(m >= observed - 1e-9 for m in means) / len(divisions))


@pytest.mark.parametrize("n, least", [(3, 0.1), (5, 2 / 252)])
def test_sets_without_overlap_have_the_least_p_of_their_size(n: int, least: float):
    assert permutation_p(range(n), range(100, 100 + n)) == pytest.approx(least)


def test_intervals_are_those_of_a_textbook():
    # Student's t with 4 degrees of freedom has 2.776 at 97.5 %
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert mean_interval(values) == pytest.approx((3 - half, 3 + half), abs=1e-5)
    # equal sizes and variances: Welch's degrees of freedom are 8, where t is 2.306
    half = 2.306004 * math.sqrt(2.5 * 2 / 5)
    assert welch(values, [v + 1 for v in values]) == pytest.approx((-1 - half, -1 + half), abs=1e-5)


def test_one_value_has_no_interval_and_none_has_no_difference():
    assert all(math.isnan(x) for x in (*mean_interval([1.0]), *welch([1.0], [2.0, 3.0])))
    with pytest.raises(ValueError, match="both sides"):
        difference([], [1.0])
