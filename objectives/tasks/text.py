"""Text of a user's own: how often the next token is the most likely one, and perplexity, over documents of any length.

A document is read in windows. Each but the first begins with tokens that the one before scored, as context; every token
but a document's first is scored once. Accuracy and perplexity are those of all tokens. One example is one document, as
the tokens of a document are not independent; it weighs as much as it has tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import DataError
from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Readable
from objectives.settings import Count, Name
from objectives.tasks.batching import USUAL, limit_of
from objectives.tasks.data.columns import texts_of
from objectives.tasks.data.rows import Row
from objectives.tasks.data.source import ROWS_FORBID, FromRows
from objectives.tasks.data.txt import Unit
from objectives.tasks.partial_scores import Reader, batches, require_rows, unique
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


CALIBRATED = 256
"""Tokens of a calibration row where neither the task nor the model sets a limit."""


@dataclass(frozen=True)
class Window:
    """A piece of a document: its token ids, and how many of the first are context, which others score."""

    ids: Sequence[int]
    context: int

    @property
    def scored(self) -> int:
        """Return the number of tokens that are predicted here and counted."""
        return len(self.ids) - self.context


def windows(ids: Sequence[int], tokens: int, stride: int) -> list[Window]:
    """Cut a document into windows of at most ``tokens`` tokens, each of which scores at most ``stride`` new ones.

    The first scores up to ``tokens - 1``; a document's first token is context. A text of one token gives none.
    """
    found = [Window(ids[:tokens], 1)] if len(ids) > 1 else []
    for start in range(tokens, len(ids), stride):
        end = min(start + stride, len(ids))
        first = max(0, end - tokens)
        found.append(Window(ids[first:end], start - first))
    return found


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class Text(FromRows, Readable):
    """Scores a decoder on texts.

    ``text``: the column with the text; ``doc_to_text``: a template in its place. ``txt``: what an example of a txt file
    is; a section is a few paragraphs. ``tokens``: the length of a window, by default what the model holds and 512
    at most; ``stride``: the new tokens of each after the first, by default half of a window. ``metric``:
    ``next_token_accuracy``, or ``inverse_perplexity`` (1 / perplexity). ``calibration_tokens``: the length of a
    calibration row, 256 by default; shorter texts are joined. The tokenizer adds the special tokens that it adds by
    itself.
    An example is a document; ``extra`` holds the perplexity.
    """

    text: Name = "text"
    doc_to_text: str | None = None
    txt: Unit = "section"
    metric: Literal["next_token_accuracy", "inverse_perplexity"] = "next_token_accuracy"
    tokens: Count | None = None
    stride: Count | None = None
    calibration_tokens: Count | None = None
    batch_rows: Count = 4

    def __post_init__(self) -> None:
        """Raise ValueError where windows would leave tokens out, or have none to score."""
        if self.tokens is not None and self.tokens < 2:
            raise ValueError(f"tokens must be >= 2, got {self.tokens}")
        if self.tokens is not None and self.stride is not None and self.stride >= self.tokens:
            raise ValueError(f"stride must be < tokens={self.tokens}, got {self.stride}")

    @property
    @override
    def unit(self) -> Unit:
        return self.txt

    @property
    @override
    def head(self) -> Head:
        return "causal_lm"

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        asked = {"tokens": self.tokens, "calibration_tokens": self.calibration_tokens}
        return tuple(Span((name,), (tokens,)) for name, tokens in asked.items() if tokens is not None)

    @override
    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        return self._texts(rows)

    @property
    @override
    def longest(self) -> int:
        return self.tokens or USUAL

    @override
    def texts(self) -> list[tuple[str, ...]]:
        return [(text,) for text in self._texts(self.divided().scored)]

    @override
    def require_documents(self) -> None:
        divided = self.divided()
        for rows in (divided.calibration, divided.scored):
            self._texts(rows)

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return the calibration texts, joined and cut into rows of ``calibration_tokens`` tokens.

        Raises DataError where they fill no row.
        """
        import torch

        ids = [token for text in self._texts(self.divided().calibration) for token in _ids(model, text)]
        size = limit_of(model.tokenizer, self.calibration_tokens, CALIBRATED)
        rows = [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]
        if not rows:
            raise DataError(
                f"task.calibration_tokens: the calibration texts have {len(ids)} tokens, fewer than one row of {size}; "
                f"give task.calibration_tokens={max(1, len(ids))}, or more texts (task.calibration)"
            )
        return {"task": [torch.tensor(rows[start : start + self.batch_rows]) for start in _starts(rows, self)]}

    @override
    def examples(self, model: Reader) -> int:
        """Return how many examples there are: documents of at least two tokens."""
        return len(self._documents(model))

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        documents = self._documents(model)
        if not documents:
            raise DataError("task.data: no text has two tokens, so that no token can be predicted; give longer texts")
        names = unique(row.place for row, _ in documents)
        weights = np.array([sum(each.scored for each in cut) for _, cut in documents], dtype=np.float64)
        weights /= weights.mean()
        guess = _guess(documents) if self.metric == "next_token_accuracy" else 1 / model.vocabulary
        for chosen in batches(order, self.batch_rows):
            shares = _shares(model, [documents[index][1] for index in chosen], self.batch_rows)
            hits, losses = (values * weights[list(chosen)] for values in shares)
            yield replace(self._part(hits, losses), ids=tuple(names[index] for index in chosen), chance=guess)

    @override
    def losses(self, model: LoadedModel) -> Sequence[str]:
        texts = len(self.divided().scored)
        short = texts - self.examples(model)
        remark = f"task.text: {short} of {texts} texts are not scored, as they have fewer than two tokens"
        return (remark,) if short else ()

    def _part(self, hits: np.ndarray[Any, Any], losses: np.ndarray[Any, Any]) -> Score:
        perplexity = _exp(float(losses.mean()))
        if self.metric == "next_token_accuracy":
            return Score(float(hits.mean()), 0.0, tuple(hits), {"perplexity": perplexity})
        return Score(1 / perplexity, 0.0, tuple(losses), {"perplexity": perplexity}, link="exp_minus_mean")

    def _texts(self, rows: Sequence[Row]) -> list[str]:
        return texts_of(rows, "task.text", self.text, self.doc_to_text)

    def _documents(self, model: Reader) -> list[tuple[Row, list[Window]]]:
        """Return the scored documents with their windows; those of fewer than two tokens are left out.

        Raises DataError where none is left.
        """
        rows = self.divided().scored
        tokens = limit_of(model.tokenizer, self.tokens)
        stride = min(self.stride or tokens // 2, tokens - 1)
        cut = [windows(_ids(model, text), tokens, stride) for text in self._texts(rows)]
        kept = [(row, each) for row, each in zip(rows, cut) if each]
        if not kept:
            raise DataError(f"task.text: none of the {len(rows)} texts has two tokens, so there is nothing to score")
        return kept


def _starts(rows: Sequence[object], task: Text) -> range:
    return range(0, len(rows), task.batch_rows)


def _ids(model: Reader, text: str) -> list[int]:
    ids: list[int] = model.tokenizer(text, verbose=False)["input_ids"]
    require_rows(model, max(ids, default=0))
    return ids


def _exp(loss: float) -> float:
    return math.exp(min(loss, 700.0)) if math.isfinite(loss) else math.nan


def _shares(model: Runner, documents: Sequence[Sequence[Window]], rows: int) -> np.ndarray[Any, Any]:
    """Return, for each document, the share of hits and the mean log-loss of its scored tokens [2, documents].

    Windows are run ``rows`` at a time, sorted by length and filled up on the right, which no token to the left sees.
    """
    places = [(place, window) for place, cut in enumerate(documents) for window in cut]
    places.sort(key=lambda each: len(each[1].ids), reverse=True)
    sums = np.zeros((2, len(documents)))
    counts = np.array([sum(window.scored for window in cut) for cut in documents])
    for batch in batches(places, rows):
        for (place, _), found in zip(batch, _window_sums(model, [window for _, window in batch])):
            sums[:, place] += found
    shares: np.ndarray[Any, Any] = sums / counts
    return shares


def _window_sums(model: Runner, batch: Sequence[Window]) -> list[tuple[float, float]]:
    """Return the number of hits and the summed log-loss of every window; NaN where logits are not finite."""
    import torch

    longest = max(len(window.ids) for window in batch)
    filled = [[*window.ids, *[window.ids[-1]] * (longest - len(window.ids))] for window in batch]
    with torch.inference_mode():
        ids = torch.tensor(filled, device=model.device)
        logits = model.logits(ids)[:, :-1].float()
        targets = ids[:, 1:]
        norms = logits.logsumexp(dim=-1)
        losses = norms - logits.gather(2, targets.unsqueeze(2)).squeeze(2)
        hits = (logits.argmax(dim=-1) == targets).float().where(norms.isfinite(), math.nan)
    found = []
    for row, window in enumerate(batch):
        counted = slice(window.context - 1, len(window.ids) - 1)
        found.append((float(hits[row, counted].double().sum()), float(losses[row, counted].double().sum())))
    return found


def _guess(documents: Sequence[tuple[Row, Sequence[Window]]]) -> float:
    """Return the accuracy of always guessing the most frequent token."""
    tokens = np.concatenate([window.ids[window.context :] for _, cut in documents for window in cut])
    return float(np.bincount(tokens).max() / len(tokens))
