"""Language modelling: the score is how often the next token is the most likely one; perplexity is reported too.

Next-token accuracy over thousands of tokens is a score in [0, 1] with far less noise than a hundred
multiple-choice questions. One example is one document: tokens of a document are not independent, so the
standard error is taken over documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, InstanceOf
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import ModelError
from objectives.models.inspection.spans import Span
from objectives.protocols.corpus import Corpus, Document
from objectives.protocols.optional import Bounded, Supplied
from objectives.protocols.task import PartiallyScorable
from objectives.settings import Count
from objectives.tasks.overlap import Excerpt, Excerpts, Exposed, copy_of, excerpt
from objectives.tasks.partial_scores import Reader, batches, merged, require_rows, unique
from objectives.types import Head, Score

if TYPE_CHECKING:
    import torch

    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner

Row = tuple[Document, list[int]]
"""A document and the token ids that are read of it."""


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class LanguageModeling(PartiallyScorable, Bounded, Supplied, Exposed):
    """Scores the first ``tokens`` tokens of ``documents`` documents; shorter documents are left out.

    The ``calibration_documents`` come from the front of the corpus, the scored documents from its end, so that they
    are disjoint.
    ``metric``: ``next_token_accuracy``, or ``inverse_perplexity`` (1 / perplexity). ``corpus``: any object
    with ``documents()``.
    """

    corpus: InstanceOf[Corpus]
    metric: Literal["next_token_accuracy", "inverse_perplexity"] = "next_token_accuracy"
    documents: Count = 16
    tokens: Count = 256
    calibration_documents: Count = 16
    batch_rows: Count = 4

    @property
    @override
    def head(self) -> Head:
        return "causal_lm"

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        return (Span(("tokens",), (self.tokens,)),)

    @override
    def require_documents(self) -> None:
        held, needed = len(self.corpus.documents()), self.calibration_documents + self.documents
        if held < needed:
            raise ModelError(
                f"task.documents: {self.calibration_documents} calibration + {self.documents} scored ones are asked "
                f"for, the corpus {type(self.corpus).__name__} has {held}"
            )

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        return {"task": self._batches(self._rows(model)[0])}

    @override
    def evaluate(self, model: Runner) -> Score:
        """Score ``model``; ``extra`` holds the perplexity."""
        return merged(list(self.parts(model, range(self.documents))))

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        import torch

        _, rows, ids = self._rows(model)
        guess = _guess(rows) if self.metric == "next_token_accuracy" else 1 / model.vocabulary
        for chosen in batches(order, self.batch_rows):
            with torch.inference_mode():
                hits, losses = _next_token(model, rows[list(chosen)])
            loss = float(np.mean(losses))
            extra = {"perplexity": math.exp(min(loss, 700.0)) if math.isfinite(loss) else math.nan}
            if self.metric == "next_token_accuracy":
                score = Score(float(np.mean(hits)), 0.0, tuple(hits), extra)
            else:
                score = Score(1.0 / extra["perplexity"], 0.0, tuple(losses), extra, link="exp_minus_mean")
            yield replace(score, ids=tuple(ids[index] for index in chosen), chance=guess)

    @override
    def excerpts(self, model: LoadedModel) -> Excerpts:
        first, last, copies = self._read(model)
        return Excerpts(list(map(_excerpt, first)), list(map(_excerpt, last)), copies)

    def _batches(self, rows: torch.Tensor) -> list[torch.Tensor]:
        return [rows[start : start + self.batch_rows] for start in range(0, len(rows), self.batch_rows)]

    def _rows(self, model: Reader) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
        """Return the token ids [documents, tokens] for calibration and for scoring, and the scored documents' names."""
        import torch

        first, last, _ = self._read(model)
        names = unique(read.id for read, _ in last)
        return torch.tensor([ids for _, ids in first]), torch.tensor([ids for _, ids in last]), names

    def _read(self, model: Reader) -> tuple[list[Row], list[Row], list[tuple[str, str]]]:
        """Return the rows that calibrate, the rows that are scored, and the copies that are left out.

        A copy has the text or the ids of a calibration row and is not scored; it is named with the row it copies.
        """
        documents = self.corpus.documents()
        first = list(islice(self._long_enough(model, documents), self.calibration_documents))
        calibration, used = list(map(_excerpt, first)), {id(read) for read, _ in first}
        last: list[Row] = []
        copies: list[tuple[str, str]] = []
        for row in self._long_enough(model, reversed(documents)):
            if id(row[0]) in used or len(last) == self.documents:
                break
            name = copy_of(_excerpt(row), calibration)
            if name is None:
                last.append(row)
            else:
                copies.append((row[0].id, name))
        if len(first) + len(last) < self.calibration_documents + self.documents:
            more = f"; {len(copies)} that calibrate under another name are not scored" if copies else ""
            raise ModelError(
                f"task.documents: the corpus has too few documents of {self.tokens} tokens for "
                f"{self.calibration_documents} calibration + {self.documents} scored ones{more}"
            )
        return first, last, copies

    def _long_enough(self, model: Reader, documents: Iterable[Document]) -> Iterator[Row]:
        for document in documents:
            ids = model.tokenizer(document.text, truncation=True, max_length=self.tokens)["input_ids"]
            if len(ids) == self.tokens:
                require_rows(model, max(ids))
                yield document, ids


def _excerpt(row: Row) -> Excerpt:
    return excerpt(row[0].id, [row[0].text], row[1])


def _next_token(model: Runner, ids: torch.Tensor) -> tuple[list[float], list[float]]:
    """Return, for each row of ``ids`` [rows, tokens], the share of hits and the mean negative log-likelihood.

    The share of hits is NaN for a row with NaN or infinite logits, of which none is the largest.
    """
    ids = ids.to(model.device)
    logits = model.logits(ids)[:, :-1]
    target = ids[:, 1:]
    sums = logits.float().logsumexp(dim=-1)
    hits = (logits.argmax(dim=-1) == target).float().where(sums.isfinite(), math.nan).mean(dim=1)
    likely = logits.gather(2, target.unsqueeze(2)).squeeze(2).float()
    losses = (sums - likely).mean(dim=1)
    return hits.tolist(), losses.tolist()


def _guess(rows: torch.Tensor) -> float:
    """Return the accuracy of always guessing the most frequent token, on ``rows`` [documents, tokens]."""
    targets = rows[:, 1:].flatten()
    return float(targets.bincount().max()) / max(targets.numel(), 1)
