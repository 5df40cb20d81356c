"""Decides whether a model reaches the accuracy floor, from the examples that were scored so far. Free of torch.

Examples are compared in pairs with the baseline's, whose score on every example is known: the gain or loss of a
candidate against it varies far less than the examples do. The floor is a number, so the mean gain that reaches it is
one too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from objectives.evaluation.sequential_test import AsymptoticRace, Contest, Race, interval
from objectives.tasks.paired import follows_from_examples
from objectives.types import Decision, Score, Verdict


@dataclass(frozen=True)
class FloorVerdict:
    """The result of comparing a score with the floor; ``certain``: no further example can change the ``verdict``.

    ``accuracy``: the estimate; ``low``, ``high``: the interval in which it lies, with the error that was asked for at
    either end, NaN where none is known. ``seen`` of ``total`` examples were scored.
    """

    verdict: Verdict
    certain: bool
    accuracy: float
    low: float
    high: float
    seen: int
    total: int

    @property
    def decision(self) -> Decision:
        """Return whether the floor is reached."""
        return self.verdict.decision


def contest(baseline: Score, floor: float, error: float) -> Contest | None:
    """Return a race of :func:`gains` against ``floor``; None where examples of this kind have to be scored in full.

    Hits (0 or 1) are raced by betting. Shares of hits differ by so much less than they could that bets against the
    range of -1 to 1 would take all examples; they and log-losses, which have no range, are raced asymptotically.
    Examples whose mean is not the accuracy are never raced, nor is a score with replicates, which says that it is none.
    """
    total, mean = len(baseline.examples), float(np.mean(baseline.examples))
    if baseline.strata or baseline.replicates or total < 2 or not 0 < floor < 1 or not follows_from_examples(baseline):
        return None
    if baseline.link == "exp_minus_mean":
        return AsymptoticRace(math.log(floor) + mean, total, error)
    if set(baseline.examples) <= {0.0, 1.0}:
        return Race(floor - mean, total, -1.0, 1.0, error)
    return AsymptoticRace(floor - mean, total, error)


def gains(candidate: Score, baseline: Score) -> tuple[float, ...]:
    """Return the gain of every example that ``candidate`` has: its score less the baseline's, negated for losses.

    Raises ValueError for an example that the baseline does not have.
    """
    base = _paired(candidate, baseline)
    sign = -1.0 if baseline.link == "exp_minus_mean" else 1.0
    return tuple(sign * (example - other) for example, other in zip(candidate.examples, base))


def estimated(candidate: Score, baseline: Score) -> Score:
    """Estimate the accuracy of a score of some examples, as the baseline's plus the mean gain; return that score."""
    if candidate.total is None:
        return candidate
    sampled = gains(candidate, baseline)
    error = float(np.std(sampled, ddof=1)) / math.sqrt(len(sampled)) if len(sampled) > 1 else 0.0
    error *= math.sqrt(max(0.0, 1 - len(sampled) / candidate.total))
    accuracy = _accuracy(baseline, float(np.mean(sampled)))
    if baseline.link == "exp_minus_mean":
        error *= accuracy
    return replace(candidate, accuracy=accuracy, stderr=error)


def exact_decision(accuracy: float, floor: float) -> Decision:
    """Compare an accuracy that is taken as known with the floor; an accuracy at the floor keeps it."""
    return Decision.REACHED if accuracy >= floor else Decision.MISSED


def joined(verdicts: Iterable[Verdict]) -> Verdict:
    """Join the verdicts on all that is asked: one miss is a miss, whatever is open; at least one verdict is needed.

    The method is that of the verdict which decides, or of the first that is not exact.
    """
    found = list(verdicts)
    missed = [each for each in found if each.decision is Decision.MISSED]
    if missed:
        return missed[0]
    first = next((each for each in found if each.method != "exact"), found[0])
    unknown = any(each.decision in (Decision.OPEN, Decision.UNSCORED) for each in found)
    return replace(first, decision=Decision.OPEN) if unknown and len(found) > 1 else first


def decide(candidate: Score, baseline: Score, floor: float, error: float) -> FloorVerdict:
    """Decide whether ``candidate`` reaches ``floor``, from its stored examples in the order they were scored in."""
    seen, total = len(candidate.examples), candidate.total or len(candidate.examples)
    if candidate.total is None or seen == total:
        decision = exact_decision(candidate.accuracy, floor)
        exact = candidate.accuracy
        return FloorVerdict(Verdict(decision), True, exact, exact, exact, seen, total)
    race, gained = contest(baseline, floor, error), gains(candidate, baseline)
    estimate = estimated(candidate, baseline).accuracy
    if race is None:
        return FloorVerdict(Verdict(Decision.OPEN, "none"), False, estimate, math.nan, math.nan, seen, total)
    decision = race.see(gained)
    if not isinstance(race, Race):
        verdict = Verdict(decision, "asymptotic")
        return FloorVerdict(verdict, race.certain, estimate, math.nan, math.nan, seen, total)
    low, high = (_accuracy(baseline, end) for end in interval(gained, total, race.low, race.high, error))
    return FloorVerdict(Verdict(decision, "betting"), race.certain, estimate, low, high, seen, total)


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
