"""Compares a candidate's accuracy with the baseline's, example by example.

Models that read the same texts fail on the same hard ones. The difference within an example varies far less than the
examples do, so the same texts tell two models apart that separate error bars would not (Miller 2024, "Adding Error
Bars to Evals", https://arxiv.org/abs/2411.00640). A metric of a whole corpus has replicates instead, which are compared
in pairs as well (:mod:`objectives.tasks.resampling`). The module is free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from objectives.types import Score

Values = NDArray[np.float64]
_ROUNDING = 1e-6
"""The difference that rounding may make between an accuracy and what its examples give."""


@dataclass(frozen=True)
class Difference:
    """The accuracy of a candidate minus the baseline's, and its 95 % confidence interval; fractions in [-1, 1].

    The interval is of the t type and not cut at -1 and 1; that of replicates reaches from percentile to percentile.
    """

    value: float
    low: float
    high: float


def paired_difference(candidate: Score, baseline: Score) -> Difference | None:
    """Return the difference ``candidate`` - ``baseline``; every domain weighs the same, however many examples it has.

    The variance is that of the delta method: in a domain, the accuracies' difference g(mean c) - g(mean b) varies as
    the mean of g'(mean c) c_i - g'(mean b) b_i. The degrees of freedom are those of Welch 1947
    (https://doi.org/10.1093/biomet/34.1-2.28).

    Where all examples differ by the same, as those of two equal models do, the interval has width 0: the data show no
    spread, which on few examples does not prove that there is none. For the same reason the interval of hits (0 or 1)
    holds the truth less often than it says where only a few examples differ.

    Where an accuracy is not that of its examples (:func:`follows_from_examples`), the interval is that of a paired
    bootstrap: the middle 95 % of the replicates' differences.

    Returns None where nothing can be estimated: a domain has one example, a score is not finite, or one that needs
    replicates has none or another number of them. Raises ValueError where the scores are not of the same examples.
    """
    _check_comparable(candidate, baseline)
    if not (follows_from_examples(candidate) and follows_from_examples(baseline)):
        return _resampled_difference(candidate, baseline)
    domains = list(zip(_domains(candidate), _domains(baseline)))
    if not all(len(ours) > 1 and np.isfinite((ours, theirs)).all() for ours, theirs in domains):
        return None
    value = math.fsum(_gain(*pair, candidate.link) for pair in domains) / len(domains)
    variances = [_variance(*pair, candidate.link) for pair in domains]
    half = _quantile(variances, [len(ours) for ours, _ in domains]) * math.sqrt(sum(variances)) / len(domains)
    return Difference(value, value - half, value + half)


def _resampled_difference(candidate: Score, baseline: Score) -> Difference | None:
    """Return the difference by replicates, of which each pair is about the same resample; None where they lack."""
    value = candidate.accuracy - baseline.accuracy
    if not candidate.replicates or len(candidate.replicates) != len(baseline.replicates):
        return None
    differences = np.subtract(candidate.replicates, baseline.replicates)
    if not (math.isfinite(value) and np.isfinite(differences).all()):
        return None
    low, high = np.quantile(differences, (0.025, 0.975))
    return Difference(value, float(low), float(high))


def is_resampled(score: Score) -> bool:
    """Return whether replicates say how sure the accuracy is, as its examples do not."""
    return bool(score.replicates) and not follows_from_examples(score)


def follows_from_examples(score: Score) -> bool:
    """Return whether the accuracy is what the examples make, as :class:`Score` asks; one that is not finite never is.

    That of a metric of a whole corpus does not follow from scores of single texts: then nothing is concluded from them.
    Nor is anything from a single example, such as one number for all texts.
    """
    if len(score.examples) < 2:
        return False
    if score.replicates:  # whoever gives some says that they tell how sure the metric is
        return False
    found = math.fsum(_accuracy(float(each.mean()), score.link) for each in _domains(score) if len(each))
    return abs(found / max(1, len(score.strata)) - score.accuracy) < _ROUNDING


def _check_comparable(candidate: Score, baseline: Score) -> None:
    ours, theirs = len(candidate.examples), len(baseline.examples)
    if ours != theirs:
        raise ValueError(f"lengths differ: the candidate has {ours} examples, the baseline {theirs}")
    if candidate.ids != baseline.ids:
        raise ValueError(f"ids differ: {_first_unlike(candidate.ids, baseline.ids)}")
    if (candidate.strata, candidate.link) != (baseline.strata, baseline.link):
        raise ValueError(
            f"strata or link differ: the candidate has {candidate.strata}, {candidate.link}, "
            f"the baseline {baseline.strata}, {baseline.link}"
        )
    if candidate.strata and sum(candidate.strata) != ours:
        raise ValueError(f"strata {candidate.strata} are of {sum(candidate.strata)} examples, the score has {ours}")


def _first_unlike(ours: Sequence[str], theirs: Sequence[str]) -> str:
    for place, (our, their) in enumerate(zip(ours, theirs)):
        if our != their:
            return f"example {place} is {our!r} of the candidate, {their!r} of the baseline"
    return f"the candidate names {len(ours)} examples, the baseline {len(theirs)}"


def _domains(score: Score) -> list[Values]:
    """Return the examples of each domain."""
    return np.split(np.asarray(score.examples, dtype=np.float64), np.cumsum(score.strata)[:-1].astype(int))


def _accuracy(mean: float, link: str) -> float:
    """Return g(``mean``): the accuracy of a domain whose mean example is ``mean``."""
    return mean if link == "mean" else math.exp(-mean)


def _slope(mean: float, link: str) -> float:
    """Return g'(``mean``)."""
    return 1.0 if link == "mean" else -math.exp(-mean)


def _gain(ours: Values, theirs: Values, link: str) -> float:
    return _accuracy(float(ours.mean()), link) - _accuracy(float(theirs.mean()), link)


def _variance(ours: Values, theirs: Values, link: str) -> float:
    """Return the variance of the gain, estimated from the spread of the examples' own gains."""
    gains = _slope(float(ours.mean()), link) * ours - _slope(float(theirs.mean()), link) * theirs
    return float(gains.var(ddof=1)) / len(gains)


def _quantile(variances: Sequence[float], sizes: Sequence[int]) -> float:
    """Return the 97.5 % quantile of Student's t, for a sum of means of ``sizes`` values that have ``variances``."""
    from scipy.special import stdtrit

    spread = sum(variance**2 / (size - 1) for variance, size in zip(variances, sizes))
    # Without any spread the interval has no width, whatever it is multiplied by.
    return float(stdtrit(sum(variances) ** 2 / spread, 0.975)) if spread else 0.0
