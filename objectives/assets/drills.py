"""Makes easy questions about any text, so that a span head learns to look before it learns what people ask.

Two thousand questions teach a new head little more than that answers stand near the beginning. In a drill the answer
is a clause of the text, the question is some of its words, and the turn before was mostly about the clause before it.
That is found by reading alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

_CLAUSE = re.compile(r"\S[^.,;]*[.,;]?")
_CLAUSES, _LETTERS = 12, 650  # of a text, at most
_WORDS = (4, 30)  # of an answer
_FOLLOWING = 0.7  # share of answers that follow the one before


def drills(passage: str, number: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yield up to ``number`` turns about pieces of ``passage``, as :mod:`objectives.assets.dialogues` has them."""
    clauses = [match.span() for match in _CLAUSE.finditer(passage)]
    for _ in range(number):
        first = draw.randrange(max(1, len(clauses) - _CLAUSES))
        some = [span for span in clauses[first : first + _CLAUSES] if span[1] - clauses[first][0] <= _LETTERS]
        context = passage[some[0][0] : some[-1][1]] if some else ""
        texts = [passage[begin:end] for begin, end in some]
        fit = [place for place in range(1, len(some)) if _WORDS[0] <= len(texts[place].split()) <= _WORDS[1]]
        if fit:
            place = draw.choice(fit)
            before = place - 1 if draw.random() < _FOLLOWING else draw.randrange(len(some))
            yield {
                "context": context,
                "history": [{"question": "", "answer": texts[before]}],
                "question": _question(texts[place], draw),
                "answer": [texts[place]],
                "answer_start": [some[place][0] - some[0][0]],
            }


def _question(answer: str, draw: random.Random) -> str:
    """Return up to three of the longer words of ``answer``, in any order."""
    words = [word.strip('.,;"()').lower() for word in answer.split() if len(word) > 3]
    return " ".join(draw.sample(words, min(len(words), draw.randrange(4)))) + "?"
