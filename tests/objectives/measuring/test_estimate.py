"""The interval of a median holds the truth as often as it says, whatever the noise looks like."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from objectives.measuring.estimate import FEWEST, LEVEL, Estimate, _rank, estimate

Samples = NDArray[np.float64]
TRIALS = 20_000


def skewed(rows: int, count: int) -> Samples:
    """Run times: a floor, an exponential tail, now and then a disturbance; divided by their median."""
    rng = np.random.default_rng(count)
    values = 1 + 0.05 * rng.exponential(size=(rows, count))
    return values + (rng.random((rows, count)) < 0.1) * rng.exponential(size=(rows, count))


MEDIAN = float(np.median(skewed(400_000, 2)))


@pytest.mark.parametrize("count", [6, 7, 8, 9, 10, 13, 20, 35, 60])
def test_the_interval_holds_the_truth_in_95_of_100_cases_under_skewed_noise(count: int) -> None:
    ordered = np.sort(skewed(TRIALS, count), axis=1)
    rank, weight = _rank(count)  # as estimate() interpolates, for all rows at once
    inner = min(rank + 1, count - 1)
    low = (1 - weight) * ordered[:, rank] + weight * ordered[:, inner]
    high = (1 - weight) * ordered[:, -1 - rank] + weight * ordered[:, -1 - inner]
    assert np.mean((low <= MEDIAN) & (high >= MEDIAN)) == pytest.approx(LEVEL, abs=0.015)
    one = estimate(list(ordered[0]))
    assert (one.low, one.high) == pytest.approx((low[0], high[0]))


def test_the_interval_of_many_samples_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    quotients = []
    for _ in range(40):
        values = rng.normal(2.0, 0.1, 101)
        medians = np.median(rng.choice(values, (400, 101)), axis=1)
        low, high = np.percentile(medians, [2.5, 97.5])
        found = estimate(list(values))
        quotients.append((found.high - found.low) / (high - low))
    assert 0.9 < np.median(quotients) < 1.15


@pytest.mark.parametrize("count", range(2, FEWEST))
def test_below_six_samples_the_interval_is_students_and_holds_the_truth(count: int) -> None:
    rows = np.random.default_rng(count).normal(10.0, 1.0, (4000, count))
    found = [estimate(list(row)) for row in rows]
    held = np.mean([each.low <= 10.0 <= each.high for each in found])
    assert 0.94 <= held <= 0.99
    assert all(each.value == np.median(row) for each, row in zip(found, rows))


def test_of_a_single_sample_nothing_is_known() -> None:
    assert estimate([3.0]) == Estimate(3.0, 0.0, 6.0)
    assert estimate([3.0]).error == 1.0
    assert estimate([1.0, 9.0]).low == 0.0


def test_six_samples_give_nearly_their_range_and_more_give_less() -> None:
    six = estimate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert (six.low, six.high) == pytest.approx((1 + 5 / 14, 6 - 5 / 14))  # by hand, from the formula of the paper
    widths = [estimate(list(np.linspace(1, 2, count))).error for count in range(6, 200)]
    assert all(later < earlier for earlier, later in pairwise(widths))


def test_the_interval_is_symmetric_in_ranks_and_does_not_mind_the_order() -> None:
    rng = np.random.default_rng(3)
    for count in (6, 7, 12, 41):
        values = rng.normal(size=count) + 10
        found, mirrored = estimate(list(values)), estimate(list(20 - values))
        assert mirrored.low == pytest.approx(20 - found.high)
        assert mirrored.high == pytest.approx(20 - found.low)
        assert estimate(sorted(values)) == estimate(sorted(values, reverse=True)) == found
        assert found.low <= found.value <= found.high


def test_one_outlier_moves_neither_median_nor_interval_far() -> None:
    calm = [2.0, 2.01, 1.99, 2.02, 1.98, 2.0, 2.01, 1.99, 2.0, 2.01]
    disturbed = estimate([*calm[:-1], 50.0])
    assert disturbed.value == pytest.approx(2.0, abs=0.01)
    assert disturbed.high <= 2.02
    assert disturbed.error < 0.01


def test_equal_samples_have_an_interval_of_no_width() -> None:
    assert estimate([4.0] * 9) == Estimate(4.0, 4.0, 4.0)
    assert estimate([4.0] * 9).error == 0


def test_a_quotient_is_as_uncertain_as_both_of_its_parts() -> None:
    exact, three, four = Estimate(2.0, 2.0, 2.0), Estimate(6.0, 5.82, 6.18), Estimate(6.0, 5.76, 6.24)
    assert three.over(exact) == Estimate(3.0, pytest.approx(2.91), pytest.approx(3.09))
    assert three.over(four).value == 1.0
    assert three.over(four).error == pytest.approx(0.05)  # 3 and 4 % in squares
    assert Estimate(1.0, 0.0, 3.0).over(four).low == 0.0


def test_the_error_is_half_of_the_interval_relative_to_the_median() -> None:
    assert Estimate(4.0, 3.0, 4.5).error == pytest.approx(0.75 / 4)
    assert Estimate(-4.0, -4.5, -3.0).error == pytest.approx(0.75 / 4)
