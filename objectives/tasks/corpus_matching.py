"""Rates answers as a whole corpus: BLEU and chrF, by the counts and the arithmetic of sacrebleu.

Both add up the n-grams of all texts and divide then, so neither is a mean of scores of texts (BLEU: Papineni et al.
2002, https://aclanthology.org/P02-1040; chrF: Popovic 2015, https://aclanthology.org/W15-3049; sacrebleu: Post 2018,
https://aclanthology.org/W18-6319). How sure they are, replicates say. The module is free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from objectives.errors import TaskError
from objectives.tasks.matching import MeanRating, rate_of, rating_packages
from objectives.tasks.resampling import Finish, Values, replicates_of, spread
from objectives.types import Score

CorpusRating = Literal["bleu", "chrf"]
Tokenize = Literal["13a", "zh", "intl", "char"]
"""The ways in which BLEU splits a text into words; Chinese and Japanese need ``zh`` or ``char``."""
_ORDERS = 4
_LEAST = 1e-300
"""A divisor where there is nothing to divide."""


@dataclass(frozen=True)
class CorpusMetric:
    """A metric of all answers together.

    ``source``: the metric of sacrebleu that counts what each text adds. ``of``: turns sums of counts [..., counts]
    into metrics [...]. ``of_one``: the same for the counts of a single text.
    """

    source: Any
    of: Finish
    of_one: Finish
    is_mean: ClassVar[bool] = False

    def score(self, answers: Sequence[str | None], accepted: Sequence[Sequence[str]]) -> Score:
        """Return the score of ``answers``, each with its accepted ones; an example is the metric of an answer alone.

        An answer that is None is no number: its example and the accuracy are NaN.
        """
        counts = self._counts([answer or "" for answer in answers], accepted)
        is_lost = np.array([answer is None for answer in answers])
        alone = tuple(np.where(is_lost, math.nan, self.of_one(counts)).tolist())
        if is_lost.any():
            return Score(math.nan, math.nan, alone)
        resampled = replicates_of(counts, self.of)
        return Score(float(np.asarray(self.of(counts.sum(axis=0)))), spread(resampled), alone, replicates=resampled)

    def _counts(self, answers: Sequence[str], accepted: Sequence[Sequence[str]]) -> Values:
        """Return what each answer adds [answers, counts]; one without any accepted answer matches nothing."""
        references = list(zip_longest(*(each or ("",) for each in accepted)))
        return np.array(self.source._extract_corpus_statistics(answers, references), dtype=np.float64)


def metric_of(name: str, tokenize: Tokenize) -> MeanRating | CorpusMetric:
    """Return the metric called ``name``: of a whole corpus, or the mean of ratings.

    Raises TaskError where its package is missing.
    """
    if name not in get_args(CorpusRating):
        return MeanRating(rate_of(name))
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise TaskError(f"task.metric: {name} needs sacrebleu: pip install 'paretune[tasks]'") from error
    if name == "chrf":
        return CorpusMetric(CHRF(), chrf, chrf)
    return CorpusMetric(BLEU(tokenize=tokenize, force=True), bleu, sentence_bleu)


def packages_of(name: str) -> tuple[str, ...]:
    """Return the packages that compute the metric called ``name``; none where this module does."""
    return ("sacrebleu",) if name in get_args(CorpusRating) else rating_packages(name)


def bleu(sums: Values) -> Values:
    """Return BLEU of ``sums`` [..., 10]: lengths of answers and references, matched n-grams of each order, all of them.

    An order without a match counts as half of one, the next such order as a quarter (the smoothing ``exp``).
    """
    orders = np.full(sums.shape[:-1], _ORDERS)
    is_there = sums[..., 2 + _ORDERS :].all(axis=-1)
    return np.where(is_there, _bleu(sums, orders), 0.0)


def sentence_bleu(sums: Values) -> Values:
    """Return BLEU of ``sums`` [..., 10] over the orders that the answers are long enough for (the effective order)."""
    return _bleu(sums, (sums[..., 2 + _ORDERS :] > 0).sum(axis=-1))


def chrf(sums: Values) -> Values:
    """Return chrF2 of ``sums`` [..., 3 x orders]: n-grams of the answers, of the references, of both, for each order.

    Precision and recall are averaged over the orders that both have, and recall has twice the weight.
    """
    said, wanted, both = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
    is_there = (said > 0) & (wanted > 0)
    orders = np.maximum(is_there.sum(axis=-1), 1)
    precision, recall = (
        np.where(is_there, both / np.maximum(each, 1), 0.0).sum(axis=-1) / orders for each in (said, wanted)
    )
    return np.asarray(5 * precision * recall / np.maximum(4 * precision + recall, _LEAST))


def _bleu(sums: Values, orders: Any) -> Values:
    """Return brevity penalty times the geometric mean of the precisions, of which the first ``orders`` count."""
    said, wanted = sums[..., 0], sums[..., 1]
    matched, written = sums[..., 2 : 2 + _ORDERS], sums[..., 2 + _ORDERS :]
    is_there = written > 0
    unmatched = np.cumsum(is_there & (matched == 0), axis=-1)
    precision = np.where(matched > 0, matched, 0.5**unmatched) / np.maximum(written, 1)
    mean = np.log(np.where(is_there, precision, 1.0)).sum(axis=-1) / np.maximum(orders, 1)
    brevity = np.minimum(0.0, 1 - wanted / np.maximum(said, 1))
    return np.where(matched.any(axis=-1), np.exp(brevity + mean), 0.0)
