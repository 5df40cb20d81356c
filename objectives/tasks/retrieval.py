"""Retrieval: a summary looks for its own document among all of them, or a document for its summary.

Texts become unit vectors (mean of the last hidden states, as all-MiniLM was trained), a query's nearest
text by cosine is looked up, and the score is accuracy@1. Pairs used for calibration are not queried,
but stay among the texts that can be found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
from objectives.tasks.batching import same_length
from objectives.tasks.embedding import embeddings
from objectives.tasks.overlap import Excerpt, Excerpts, Exposed, excerpt
from objectives.tasks.partial_scores import batches, merged, unique
from objectives.tasks.progress import expected
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


_QUERIES = 128
"""Queries that are embedded at a time: enough to sort them by length."""


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Retrieval(PartiallyScorable, Bounded, Supplied, Exposed):
    """Searches the first ``pool`` pairs of ``corpus`` (any object with ``documents()`` that have summaries).

    ``query``: which half of a pair looks for the other. Texts are cut at ``tokens``. The first ``calibration_pairs``
    pairs calibrate.
    """

    corpus: InstanceOf[Corpus]
    query: Literal["summary", "document"] = "summary"
    pool: Count = 1000
    tokens: Count = 128
    calibration_pairs: Count = 64
    batch_rows: Count = 32

    @property
    @override
    def head(self) -> Head:
        return "encoder"

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        return (Span(("tokens",), (self.tokens,), "encoder"),)

    @override
    def require_documents(self) -> None:
        self._read()

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return documents and summaries, as both are embedded."""
        pairs = self._pairs()[: self.calibration_pairs]
        texts = [text for pair in pairs for text in (pair.text, pair.summary or "")]
        rows = [model.tokenizer(text, truncation=True, max_length=self.tokens)["input_ids"] for text in texts]
        return {"task": same_length(rows, self.batch_rows)}

    @override
    def evaluate(self, model: Runner) -> Score:
        """Score ``model``; an example is 1 where the query found its partner."""
        return merged(list(self.parts(model, range(len(self._pairs()) - self.calibration_pairs))))

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        """Yield scores of a few queries at a time; all texts that can be found are embedded before the first.

        A query whose similarities are not all finite has no nearest text: its example is NaN.
        """
        pairs = self._pairs()
        queries, answers = [pair.summary or "" for pair in pairs], [pair.text for pair in pairs]
        if self.query == "document":
            queries, answers = answers, queries
        with expected(len(answers) + len(order)):
            found_among = embeddings(model, answers, self.tokens, self.batch_rows)
            ids = unique(pair.id for pair in pairs[self.calibration_pairs :])
            for chosen in batches(order, _QUERIES):
                places = [self.calibration_pairs + index for index in chosen]
                asked = [queries[place] for place in places]
                similarity = embeddings(model, asked, self.tokens, self.batch_rows) @ found_among.t()
                nearest, is_known = similarity.argmax(dim=1), similarity.isfinite().all(dim=1)
                rows = zip(nearest.tolist(), places, is_known.tolist())
                hits = [float(found == place) if known else math.nan for found, place, known in rows]
                names = tuple(ids[index] for index in chosen)
                yield Score(float(np.mean(hits)), 0.0, tuple(hits), ids=names, chance=1 / len(pairs))

    @override
    def excerpts(self, model: LoadedModel) -> Excerpts:
        """Return the pairs that calibrate and those that are scored, each by its document."""
        pairs, copies = self._read()
        rows = list(map(_excerpt, pairs))
        return Excerpts(rows[: self.calibration_pairs], rows[self.calibration_pairs :], copies)

    def _pairs(self) -> list[Document]:
        return self._read()[0]

    def _read(self) -> tuple[list[Document], list[tuple[str, str]]]:
        """Return the pool, and the copies of calibration pairs that are left out of it, each with what it copies."""
        documents: Sequence[Document] = self.corpus.documents()
        summarised = [document for document in documents if document.summary]
        pairs = summarised[: self.calibration_pairs]
        calibration = list(map(_excerpt, pairs))
        held = {key: each.name for each in calibration for key in each.keys}
        copies: list[tuple[str, str]] = []
        for pair in summarised[self.calibration_pairs :]:
            shared = sorted(_excerpt(pair).keys & held.keys())
            if len(pairs) >= self.pool:
                break
            if shared:
                copies.append((pair.id, held[shared[0]]))
            else:
                pairs.append(pair)
        pairs = pairs[: self.pool]
        if len(pairs) <= self.calibration_pairs:
            raise ModelError(
                f"task.calibration_pairs: the corpus has {len(pairs)} documents with a summary, "
                f"{self.calibration_pairs} of them would calibrate and none be left to score"
            )
        return pairs, copies


def _excerpt(pair: Document) -> Excerpt:
    return excerpt(pair.id, [pair.text])
