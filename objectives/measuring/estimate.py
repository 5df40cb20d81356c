"""A median and its interval, without an assumption about the distribution of the noise.

The ends of the interval are order statistics: whether a sample falls below the median is a coin toss, whatever the
noise looks like. Between neighbouring order statistics they are interpolated, so that the level is 95 % at every size
(Hettmansperger & Sheather 1986, https://doi.org/10.1016/0167-7152(86)90021-0). Below six samples even the whole range
has less than that, so the noise is taken as normal there (Student's interval); of a single sample nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import hypot, pi, sqrt
from statistics import median, stdev

LEVEL = 0.95
FEWEST = 6
"""Samples from which on an interval of that level exists."""


@dataclass(frozen=True)
class Estimate:
    """A median with its interval, in the unit of the samples."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Return half of the interval, relative to the median."""
        return (self.high - self.low) / 2 / abs(self.value)

    def over(self, other: Estimate) -> Estimate:
        """Divide by another independent estimate, both positive: their relative errors add up in squares."""
        value = self.value / other.value
        below = hypot(1 - self.low / self.value, other.high / other.value - 1)
        above = hypot(self.high / self.value - 1, 1 - other.low / other.value)
        return Estimate(value, value * max(0.0, 1 - below), value * (1 + above))


def estimate(samples: Sequence[float]) -> Estimate:
    """Estimate the median of at least one sample, with its 95 % interval."""
    ordered = sorted(samples)
    if len(ordered) < FEWEST:
        return _of_few(ordered)
    rank, weight = _rank(len(ordered))

    def between(first: int, second: int) -> float:
        return (1 - weight) * ordered[first] + weight * ordered[second]

    inner = min(rank + 1, len(ordered) - 1)
    return Estimate(median(ordered), between(rank, inner), between(-1 - rank, -1 - inner))


def _of_few(samples: Sequence[float]) -> Estimate:
    """Return Student's interval around the median, which is less certain than the mean by a factor of sqrt(pi / 2)."""
    from scipy.special import stdtrit

    value, count = median(samples), len(samples)
    if count == 1:
        return Estimate(value, 0.0, 2 * value)
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * stdev(samples) * sqrt(pi / 2 / count)
    return Estimate(value, max(0.0, value - half), value + half)


@cache
def _rank(count: int) -> tuple[int, float]:
    """Return the lower end of the interval: the rank of an order statistic, from 0, and the weight of the next one."""
    from scipy.special import bdtr  # here, as the driver builds settings without it

    def level(rank: int) -> float:
        return 1 - 2 * float(bdtr(rank, count, 0.5))

    rank = max(rank for rank in range(count // 2) if level(rank) >= LEVEL)
    share = (level(rank) - LEVEL) / (level(rank) - level(rank + 1))
    nth = rank + 1
    return rank, (count - nth) * share / (nth + (count - 2 * nth) * share)
