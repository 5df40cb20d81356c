"""Whether a model keeps the accuracy floor, from the examples that were scored so far. Free of torch.

Compared in pairs with the baseline, whose score on every example is known: what a candidate gains or loses against it
varies far less than the examples do. The floor is a number, so the mean gain that reaches it is one too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from objectives.racing import AsymptoticRace, Contest, Decision, Race, interval
from objectives.types import Score


@dataclass(frozen=True)
class Verdict:
    """``decision``: ``reached``, ``missed`` or ``open``; ``certain``: no further example can change it.

    ``accuracy``: the estimate, and the interval [``low``, ``high``] in which it lies with the error that was asked for
    at either end; NaN where none is known. ``method``: ``exact``, ``betting`` or ``asymptotic``.
    """

    decision: Decision
    certain: bool
    accuracy: float
    low: float
    high: float
    seen: int
    total: int
    method: str


def contest(baseline: Score, floor: float, error: float) -> Contest | None:
    """A race of :func:`gains`; None where examples of this kind have to be scored in full.

    Hits (0 or 1) are raced by betting. Shares of hits differ by so much less than they could that bets against the
    range of -1 to 1 would take all examples; they and log-losses, which have no range, are raced asymptotically.
    """
    total, mean = len(baseline.examples), float(np.mean(baseline.examples))
    if baseline.strata or total < 2 or not 0 < floor < 1:
        return None
    if baseline.link == "exp_minus_mean":
        return AsymptoticRace(math.log(floor) + mean, total, error)
    if set(baseline.examples) <= {0.0, 1.0}:
        return Race(floor - mean, total, -1.0, 1.0, error)
    return AsymptoticRace(floor - mean, total, error)


def gains(candidate: Score, baseline: Score) -> tuple[float, ...]:
    """Of every example that ``candidate`` has: its score less the baseline's, turned round for losses.

    Raises ValueError for an example that the baseline does not have.
    """
    base = _paired(candidate, baseline)
    sign = -1.0 if baseline.link == "exp_minus_mean" else 1.0
    return tuple(sign * (own - other) for own, other in zip(candidate.examples, base))


def estimated(candidate: Score, baseline: Score) -> Score:
    """A score of some examples, its accuracy estimated as the baseline's plus the mean gain."""
    if candidate.total is None:
        return candidate
    found = gains(candidate, baseline)
    error = float(np.std(found, ddof=1)) / math.sqrt(len(found)) if len(found) > 1 else 0.0
    error *= math.sqrt(max(0.0, 1 - len(found) / candidate.total))
    accuracy = _accuracy(baseline, float(np.mean(found)))
    if baseline.link == "exp_minus_mean":
        error *= accuracy
    return replace(candidate, accuracy=accuracy, stderr=error)


def judge(candidate: Score, baseline: Score, floor: float, error: float) -> Verdict:
    """Decide again from what is stored, in the order in which it was scored."""
    seen, total = len(candidate.examples), candidate.total or len(candidate.examples)
    if candidate.total is None or seen == total:
        decision: Decision = "reached" if candidate.accuracy >= floor else "missed"
        exact = candidate.accuracy
        return Verdict(decision, True, exact, exact, exact, seen, total, "exact")
    race, found = contest(baseline, floor, error), gains(candidate, baseline)
    estimate = estimated(candidate, baseline).accuracy
    if race is None:
        return Verdict("open", False, estimate, math.nan, math.nan, seen, total, "none")
    decision = race.see(found)
    low, high, method = math.nan, math.nan, "asymptotic"
    if isinstance(race, Race):
        low, high = (_accuracy(baseline, end) for end in interval(found, total, race.low, race.high, error))
        method = "betting"
    return Verdict(decision, race.certain, estimate, low, high, seen, total, method)


def _accuracy(baseline: Score, gain: float) -> float:
    mean = float(np.mean(baseline.examples))
    return math.exp(gain - mean) if baseline.link == "exp_minus_mean" else mean + gain


def _paired(candidate: Score, baseline: Score) -> Sequence[float]:
    if not candidate.ids and len(candidate.examples) == len(baseline.examples):
        return baseline.examples
    by_id = dict(zip(baseline.ids, baseline.examples))
    unknown = next((name for name in candidate.ids if name not in by_id), None)
    if unknown is not None or len(candidate.ids) != len(candidate.examples):
        raise ValueError(f"the baseline has no example {unknown!r}")
    return [by_id[name] for name in candidate.ids]
