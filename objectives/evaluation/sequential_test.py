"""Decides whether a mean reaches a threshold, from as few examples as that takes, with a bounded rate of errors.

The examples are a finite set, drawn in random order without replacement. A gambler bets, before every example, that the
mean reaches the threshold (or that it does not); were it otherwise, no strategy could be expected to win. Capital that
has grown to 1 / error is therefore evidence at that error, whenever one looks: Ville's inequality needs no fixed number
of looks. After n of N examples the rest must average (N threshold - sum) / (N - n): that is what bets are made against,
and where no rest can have that mean, the answer is certain.

Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting",
https://doi.org/10.1093/jrsssb/qkad009. Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from objectives.types import Decision

Values = NDArray[np.float64]

_STAKES = np.geomspace(0.01, 0.9, 16)
"""Shares of the largest bet that cannot ruin; the capital is spread over all, as nobody knows the best beforehand."""
_ROUNDING = 1e-9


class Contest(Protocol):
    """A test that looks at examples one by one until it is decided: both kinds of race are one."""

    seen: int
    decision: Decision

    def see(self, examples: Iterable[float]) -> Decision:
        """Look at further examples, in their order; those after the decision change nothing."""

    @property
    def certain(self) -> bool:
        """Return whether no further example can change the answer."""


class Race:
    """A test by betting of whether the mean over ``total`` examples in [``low``, ``high``] reaches ``threshold``.

    The probability that ``missed`` is said of a mean that reaches the threshold is at most ``error``, and so is that of
    the other mistake. The examples must come in an order that was drawn at random. Raises ValueError for arguments
    outside their range.
    """

    def __init__(self, threshold: float, total: int, low: float, high: float, error: float) -> None:
        if not (low < high and 0 < error < 1 and total > 0):
            raise ValueError(f"need low < high, 0 < error < 1, total > 0; got {low}, {high}, {error}, {total}")
        self.threshold, self.total, self.low, self.high, self.error = threshold, total, low, high, error
        self.seen, self.sum = 0, 0.0
        self._for = np.zeros_like(_STAKES)
        self._against = np.zeros_like(_STAKES)
        self.decision: Decision = Decision.OPEN
        self._settle()

    def see(self, examples: Iterable[float]) -> Decision:
        """Look at further examples, in their order; those after the decision change nothing."""
        for example in examples:
            if self.decision != Decision.OPEN:
                break
            if not self.low - _ROUNDING <= example <= self.high + _ROUNDING:
                raise ValueError(f"an example is {example}, outside [{self.low}, {self.high}]")
            rest = self._rest()
            self._for += np.log1p(_STAKES * (example - rest) / (rest - self.low))
            self._against += np.log1p(_STAKES * (rest - example) / max(self.high - rest, _ROUNDING))
            self.seen, self.sum = self.seen + 1, self.sum + example
            self._settle()
        return self.decision

    @property
    def certain(self) -> bool:
        """Return whether no further example can change the answer."""
        return self._bound() != Decision.OPEN

    def _rest(self) -> float:
        """Return the average that the examples not yet seen must have for the mean to be the threshold."""
        return (self.total * self.threshold - self.sum) / (self.total - self.seen)

    def _bound(self) -> Decision:
        left, needed = self.total - self.seen, self.total * self.threshold - self.sum
        slack = _ROUNDING * self.total
        if left * self.low >= needed - slack:
            return Decision.REACHED
        return Decision.MISSED if left * self.high < needed - slack else Decision.OPEN

    def _settle(self) -> None:
        self.decision = self._bound()
        if self.decision == Decision.OPEN:
            wanted = math.log(len(_STAKES) / self.error)
            if np.logaddexp.reduce(self._for) >= wanted:
                self.decision = Decision.REACHED
            elif np.logaddexp.reduce(self._against) >= wanted:
                self.decision = Decision.MISSED


class AsymptoticRace:
    """A race of examples without bounds, such as log-losses.

    Its error holds for many examples, as the central limit theorem does. Half of the interval after t examples:
    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence
    sequences", one-sided, https://arxiv.org/abs/2103.06476. As the set is finite, the interval is wider than need be.
    """

    FEWEST = 24

    def __init__(self, threshold: float, total: int, error: float) -> None:
        self.threshold, self.total, self.error = threshold, total, error
        self.seen = 0
        self.decision: Decision = Decision.OPEN
        self._mean, self._squares = 0.0, 0.0
        wanted = -2 * math.log(2 * min(error, 0.2))
        self._focus = (wanted + math.log(wanted) + 1) / max(1.0, total / 4)  # tightest at a quarter of all

    def see(self, examples: Iterable[float]) -> Decision:
        """Look at further examples, in their order; those after the decision change nothing."""
        for example in examples:
            if self.decision != Decision.OPEN:
                break
            if not math.isfinite(example):
                raise ValueError(f"an example is {example}")
            self.seen += 1
            away = example - self._mean
            self._mean += away / self.seen
            self._squares += away * (example - self._mean)  # Welford 1962
            self._settle()
        return self.decision

    @property
    def certain(self) -> bool:
        """Return whether all examples were seen."""
        return self.seen == self.total

    def _settle(self) -> None:
        away = self._mean - self.threshold
        if self.certain:
            self.decision = Decision.REACHED if away >= -_ROUNDING else Decision.MISSED
        elif self.seen >= self.FEWEST and abs(away) > self._half():
            self.decision = Decision.REACHED if away > 0 else Decision.MISSED

    def _half(self) -> float:
        time = self.seen * self._focus
        widening = 2 * (time + 1) / (self.seen * time) * math.log(1 + math.sqrt(time + 1) / (2 * self.error))
        return math.sqrt(self._squares / (self.seen - 1) * widening)


def interval(examples: Iterable[float], total: int, low: float, high: float, error: float) -> tuple[float, float]:
    """Return an interval of the mean: the thresholds that no race over ``examples`` decides.

    It holds the mean with a probability of at least 1 - 2 ``error``, however many examples were seen. Its ends are
    found by bisection, in 12 steps.
    """
    seen = list(examples)

    def lowest(decision: Decision, inside: float, outside: float) -> float:
        """Return the end of the interval, between the threshold ``inside``, which is open, and ``outside``."""
        for _ in range(12):
            middle = (inside + outside) / 2
            race = Race(middle, total, low, high, error)
            inside, outside = (inside, middle) if race.see(seen) == decision else (middle, outside)
        return outside

    mean = sum(seen) / len(seen) if seen else (low + high) / 2
    if len(seen) == total:
        return mean, mean
    return lowest(Decision.REACHED, mean, low), lowest(Decision.MISSED, mean, high)
