"""Rates the ranks of relevant documents: accuracy@k, mean reciprocal rank, nDCG@10. The module is free of torch.

nDCG is that of binary relevance: a relevant document at rank r counts 1 / log2(1 + r), as a share of what the best
order would give (Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from objectives.tasks.resampling import Values

RankMetric = Literal["accuracy@1", "accuracy@5", "accuracy@10", "mrr", "ndcg@10"]
_DEPTH = 10
_DISCOUNTS = 1 / np.log2(np.arange(2, _DEPTH + 2))


def ranks(similarities: Values, relevant: Sequence[int]) -> Values:
    """Return the ranks of the ``relevant`` documents, the best first, among all with these ``similarities``.

    Of equal similarities those of documents that are not relevant go first, so a model that finds all texts alike
    finds nothing. All ranks are NaN where a similarity is not finite.
    """
    if not np.isfinite(similarities).all():
        return np.full(len(relevant), math.nan)
    found = np.sort(similarities[list(relevant)])[::-1]
    others = np.sort(np.delete(similarities, list(relevant)))
    before = len(others) - np.searchsorted(others, found, side="left")
    return np.asarray(before + np.arange(1, len(found) + 1), dtype=np.float64)


def rated(metric: RankMetric, places: Values) -> float:
    """Return the metric of a query, in [0, 1], whose relevant documents have these ranks, the best first."""
    if math.isnan(places[0]):
        return math.nan
    if metric == "mrr":
        return float(1 / places[0])
    if metric == "ndcg@10":
        gained = _DISCOUNTS[places[places <= _DEPTH].astype(int) - 1].sum()
        return float(gained / _DISCOUNTS[: len(places)].sum())
    return float(places[0] <= int(metric.removeprefix("accuracy@")))


def guessed(metric: RankMetric, relevant: int, documents: int) -> float:
    """Return what a random order of ``documents``, of which some are ``relevant``, reaches on average."""
    if metric == "ndcg@10":
        expected = _DISCOUNTS[:documents].sum() * relevant / documents
        return float(expected / _DISCOUNTS[:relevant].sum())
    # The chance that the first relevant one comes after rank r is that of drawing r others, one after the other.
    drawn = np.arange(documents - relevant + 1)
    later = np.concatenate([[1.0], np.cumprod((documents - relevant - drawn) / (documents - drawn))])
    each = [rated(metric, np.array([place])) for place in range(1, len(later))]
    return float((later[:-1] - later[1:]) @ each)
