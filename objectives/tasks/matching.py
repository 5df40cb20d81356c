"""Rates an answer against accepted ones, text by text: exact match, F1 of words, ROUGE.

Quasi-exact match and F1 of words are those of SQuAD (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250): case,
punctuation, articles and spaces do not count. ROUGE (Lin 2004) is that of rouge-score, which by itself sees words of
Latin letters alone. In scripts without spaces between words, Chinese, Kana, Thai, Lao, Khmer and Burmese, every
character is a word here, also beside Latin letters and digits, as MLQA's F1 takes Chinese (Lewis et al. 2020,
https://arxiv.org/abs/1910.07475). Words of all other scripts, Korean among them, stay words, with the marks above and
below letters.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import regex

from objectives.errors import TaskError
from objectives.types import Score

Rating = Literal["exact_match", "quasi_exact_match", "f1", "rouge1", "rouge2", "rougeL"]
Rate = Callable[[str, str], float]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_UNSPACED = (
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    r"\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters that are written without spaces between words. Hangul is not among them."""
_ONE = rf"[[{_UNSPACED}]--\p{{M}}]\p{{M}}*"
_WORDS = regex.compile(rf"(?V1){_ONE}|[[\p{{L}}\p{{N}}\p{{M}}]--[{_UNSPACED}]]+")
_PARTS = regex.compile(rf"(?V1){_ONE}|[\S--[{_UNSPACED}]]+")
_PUNCTUATION = regex.compile(
    rf"(?V1)[{regex.escape(string.punctuation)}]|[[\p{{P}}\p{{S}}]&&[\u3000-\u303f\u30fb\uff00-\uffef]]"
)
"""ASCII punctuation, which is SQuAD's, and that of Chinese and Japanese."""


def normalized(text: str) -> str:
    """Return ``text`` in lower case without punctuation, English articles and needless spaces."""
    return " ".join(_ARTICLES.sub(" ", _PUNCTUATION.sub("", text.lower())).split())


def exact_match(answer: str, wanted: str) -> float:
    """Return 1 where both texts are the same but for spaces around them, else 0."""
    return float(answer.strip() == wanted.strip())


def quasi_exact_match(answer: str, wanted: str) -> float:
    """Return 1 where both texts are the same once normalised, else 0; it has its name from HELM."""
    return float(normalized(answer) == normalized(wanted))


def word_f1(answer: str, wanted: str) -> float:
    """Return the harmonic mean of precision and recall over normalised words; of two texts without any, 1."""
    ours, theirs = (_PARTS.findall(normalized(text)) for text in (answer, wanted))
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


class _Words:
    """Splits a text for ROUGE: words of letters, marks and digits in lower case, and single characters."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words."""
        words: list[str] = _WORDS.findall(unicodedata.normalize("NFKC", text).lower())
        return words


@cache
def _rouge(name: str) -> Rate:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise TaskError(f"task.metric: {name} needs rouge-score: pip install 'paretune[tasks]'") from error
    scorer: Any = RougeScorer([name], tokenizer=_Words())
    return lambda answer, wanted: float(scorer.score(wanted, answer)[name].fmeasure)


_RATES: Mapping[str, Rate] = {
    "exact_match": exact_match,
    "quasi_exact_match": quasi_exact_match,
    "f1": word_f1,
}


def rate_of(name: str) -> Rate:
    """Return the function that rates an answer against an accepted one, in [0, 1]; ``name`` is a :data:`Rating`.

    Raises TaskError where its package is missing.
    """
    return _RATES.get(name) or _rouge(name)


def rating_packages(name: str) -> tuple[str, ...]:
    """Return the packages that compute the :data:`Rating` called ``name``."""
    return () if name in _RATES else ("rouge-score",)


def best(rate: Rate, answer: str, accepted: Sequence[str]) -> float:
    """Return the best rating of ``answer`` against any of the accepted ones."""
    return max((rate(answer, each) for each in accepted), default=0.0)


@dataclass(frozen=True)
class MeanRating:
    """A metric that is the mean of its examples: an example is the best rating of an answer."""

    rate: Rate
    is_mean: ClassVar[bool] = True

    def score(self, answers: Sequence[str | None], accepted: Sequence[Sequence[str]]) -> Score:
        """Return the score of ``answers``, each with its accepted ones; an answer that is None makes it NaN."""
        rated = tuple(
            math.nan if answer is None else best(self.rate, answer, each) for answer, each in zip(answers, accepted)
        )
        return Score(float(np.mean(rated)), 0.0, rated)
