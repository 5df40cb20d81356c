"""A median and what is known about it, without assuming how the noise is distributed.

The interval lies between two order statistics: that a sample falls below the median is a coin toss, whatever the
noise looks like. Between neighbouring order statistics it is interpolated, so that its level is 95 % at every size
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
        """Half of the interval, relative to the median."""
        return (self.high - self.low) / 2 / abs(self.value)

    def over(self, other: Estimate) -> Estimate:
        """The quotient of two independent, positive estimates: their relative errors add up in squares."""
        value = self.value / other.value
        below = hypot(1 - self.low / self.value, other.high / other.value - 1)
        above = hypot(self.high / self.value - 1, 1 - other.low / other.value)
        return Estimate(value, value * max(0.0, 1 - below), value * (1 + above))


def estimate(samples: Sequence[float]) -> Estimate:
    """The median of at least one sample and its 95 % interval."""
    ordered = sorted(samples)
    if len(ordered) < FEWEST:
        return _of_few(ordered)
    rank, weight = _rank(len(ordered))

    def between(first: int, second: int) -> float:
        return (1 - weight) * ordered[first] + weight * ordered[second]

    inner = min(rank + 1, len(ordered) - 1)
    return Estimate(median(ordered), between(rank, inner), between(-1 - rank, -1 - inner))


def _of_few(samples: Sequence[float]) -> Estimate:
    """Student's interval around the median, which is less certain than the mean by a factor of sqrt(pi / 2)."""
    from scipy.special import stdtrit

    value, count = median(samples), len(samples)
    if count == 1:
        return Estimate(value, 0.0, 2 * value)
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * stdev(samples) * sqrt(pi / 2 / count)
    return Estimate(value, max(0.0, value - half), value + half)


@cache
def _rank(count: int) -> tuple[int, float]:
    """The lower end: the order statistic of that rank, from 0, and the weight of the next one."""
    from scipy.special import bdtr  # here, as the driver builds settings without it

    def level(rank: int) -> float:
        return 1 - 2 * float(bdtr(rank, count, 0.5))

    rank = max(rank for rank in range(count // 2) if level(rank) >= LEVEL)
    share = (level(rank) - LEVEL) / (level(rank) - level(rank + 1))
    nth = rank + 1
    return rank, (count - nth) * share / (nth + (count - 2 * nth) * share)
