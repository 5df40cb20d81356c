"""Reads a question and a text in windows, and finds the likeliest span of the text. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from objectives.tasks.data.columns import literal_of
from objectives.tasks.encoding import Encoded
from objectives.tasks.partial_scores import Reader, require_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A question with a piece of its text; ``spans``: for each token its characters in the text, None for others."""

    encoded: Encoded
    spans: Sequence[tuple[int, int] | None]

    @property
    def marks(self) -> list[bool]:
        """Return which tokens are of the text."""
        return [span is not None for span in self.spans]


@dataclass(frozen=True)
class Found:
    """A span of characters with its score, the sum of two logits; ``nothing``: the score of no answer."""

    first: int
    last: int
    score: float
    nothing: float


def windows(model: Reader, question: str, text: str, most: int, stride: int) -> list[Window]:
    """Return windows of at most ``most`` tokens, of which neighbours share ``stride`` tokens of the text.

    A question is never cut. Raises Unsupported for a token that the model has no row for.
    """
    read = model.tokenizer(
        question, text, truncation="only_second", max_length=most, stride=stride, return_overflowing_tokens=True,
        return_offsets_mapping=True, verbose=False,
    )  # fmt: skip
    types = read.get("token_type_ids") or [None] * len(read["input_ids"])
    require_rows(model, max(map(max, read["input_ids"])))
    return [
        Window(
            Encoded(ids, kinds, len(ids)),
            [tuple(span) if side == 1 else None for span, side in zip(spans, read.sequence_ids(place))],
        )
        for place, (ids, kinds, spans) in enumerate(zip(read["input_ids"], types, read["offset_mapping"]))
    ]


def best_span(window: Window, logits: Tensor, longest: int) -> Found | None:
    """Return the likeliest span of at most ``longest`` tokens, by ``logits`` [tokens, 2] of its beginning and end.

    Every pair of beginning and end is tried. None where a logit is not finite.
    """
    import torch

    if not bool(logits.isfinite().all()):
        return None
    marks = torch.tensor(window.marks)
    begins, ends = (side.masked_fill(~marks, -torch.inf) for side in logits.unbind(dim=1))
    sums = begins[:, None] + ends[None, :]
    allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(longest - 1)
    sums = sums.masked_fill(~allowed, -torch.inf)
    place = int(sums.argmax())
    first, last = window.spans[place // len(marks)], window.spans[place % len(marks)]
    nothing = float(logits[0].sum())
    if first is None or last is None:  # no token of the text
        return Found(0, 0, -torch.inf, nothing)
    return Found(first[0], last[1], float(sums.flatten()[place]), nothing)


def answer_of(text: str, found: Sequence[Found | None], may_be_none: bool) -> str | None:
    """Return the span of ``text`` that is likeliest in all its windows; empty where no answer is likelier.

    ``may_be_none``: whether a question may have no answer. None where a logit is not finite.
    """
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    best = max(known, key=lambda each: each.score)
    if may_be_none and min(each.nothing for each in known) > best.score:
        return ""
    return text[best.first : best.last]


def texts_of_answers(value: Any) -> tuple[str, ...]:
    """Return the accepted answers of a row: a text, a list of texts, SQuAD's ``{"text": [...]}``, or a list of such.

    There may be none. A cell of a table may hold a list of texts, or SQuAD's object, as text.
    """
    if value is None:
        return ()
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        written = literal_of(value)
        texts = written.get("text") if isinstance(written, dict) else written
        if isinstance(texts, list) and all(isinstance(each, str) for each in texts):
            return texts_of_answers(texts)
    if isinstance(value, dict):
        return texts_of_answers(value.get("text"))
    if isinstance(value, (list, tuple)):
        return tuple(text for each in value for text in texts_of_answers(each))
    return (str(value),) if str(value).strip() else ()
