"""Correlates values, or their ranks, with bootstrap replicates that need no sorting. The module is free of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from objectives.tasks.resampling import Indices, Values, replicates_by, spread
from objectives.types import Score

Correlation = Literal["spearman", "pearson"]


def correlation_score(metric: Correlation, cosines: Values, labels: Values) -> Score:
    """Return the score of pairs with these ``cosines`` and ``labels`` [pairs]; NaN where a cosine is not finite."""
    examples = tuple(cosines.tolist())
    if not np.isfinite(cosines).all():
        return Score(math.nan, math.nan, examples)
    of = _CORRELATIONS[metric]
    one, other = (_steps(values) if metric == "spearman" else values for values in (cosines, labels))
    resampled = replicates_by(lambda places: max(0.0, of(one[places], other[places])), len(examples))
    extra = {"spearman": spearman(cosines, labels), "pearson": pearson(cosines, labels)}
    return Score(max(0.0, extra[metric]), spread(resampled), examples, extra, chance=0.0, replicates=resampled)


def pearson(one: Values, other: Values) -> float:
    """Return the correlation of two lists of values, in [-1, 1]; 0 where all values of a list are equal."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    one, other = one - one.mean(), other - other.mean()
    return float(np.clip(one @ other / math.sqrt((one @ one) * (other @ other)), -1.0, 1.0))


def spearman(one: Values, other: Values) -> float:
    """Return the correlation of the ranks of two lists of values, in [-1, 1]; equal values share a middle rank."""
    return _of_ranks(_steps(one), _steps(other))


def _steps(values: Values) -> Indices:
    """Return for every value how many different ones are smaller, of which ranks can be made without sorting."""
    return np.unique(values, return_inverse=True)[1]


def _of_ranks(one: Indices, other: Indices) -> float:
    return pearson(_middle_ranks(one), _middle_ranks(other))


def _middle_ranks(steps: Indices) -> Values:
    """Return the ranks of values from their ``steps``; some steps may be missing."""
    counts = np.bincount(steps)
    ranks: Values = (counts.cumsum() - (counts - 1) / 2)[steps]
    return ranks


_CORRELATIONS: Mapping[Correlation, Callable[[Any, Any], float]] = {"spearman": _of_ranks, "pearson": pearson}
