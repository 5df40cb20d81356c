"""Retrieval: does a summary find its own document among all of them, or a document its summary?

Texts become unit vectors (mean of the last hidden states, as all-MiniLM was trained), a query's nearest
text by cosine is looked up, and the score is accuracy@1. Pairs used for calibration are not queried,
but stay among what can be found.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, InstanceOf
from pydantic.dataclasses import dataclass as settings

from objectives.errors import ModelError
from objectives.models.inspection.spans import Span
from objectives.protocols.corpus import Corpus, Document
from objectives.settings import Count
from objectives.tasks.overlap import Excerpt, Excerpts, excerpt
from objectives.tasks.partial_scores import batches, merged, require_rows, unique
from objectives.types import Head, Score

if TYPE_CHECKING:
    import torch

    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


_QUERIES = 128
"""At a time: enough to sort them by length."""


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Retrieval:
    """Search the first ``pool`` pairs of ``corpus`` (any object with ``documents()`` that have summaries).

    ``query``: which half of a pair looks for the other. Texts are cut at ``tokens``. ``calibration_pairs`` pairs from
    the front calibrate.
    """

    corpus: InstanceOf[Corpus]
    query: Literal["summary", "document"] = "summary"
    pool: Count = 1000
    tokens: Count = 128
    calibration_pairs: Count = 64
    batch_rows: Count = 32

    @property
    def head(self) -> Head:
        """Scores encoders."""
        return "encoder"

    @property
    def spans(self) -> tuple[Span, ...]:
        """See ``Bounded``."""
        return (Span(("tokens",), (self.tokens,), "encoder"),)

    def require_documents(self) -> None:
        """See ``Supplied``."""
        self._read()

    def calibration(self, model: LoadedModel) -> Domains:
        """See ``Task``: documents and summaries, as both are embedded."""
        pairs = self._pairs()[: self.calibration_pairs]
        texts = [text for pair in pairs for text in (pair.text, pair.summary or "")]
        return {"task": _same_length_batches(model, texts, self.tokens, self.batch_rows)}

    def evaluate(self, model: Runner) -> Score:
        """See ``Task``; an example is 1 when the query found its partner."""
        return merged(list(self.parts(model, range(len(self._pairs()) - self.calibration_pairs))))

    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        """See ``PartiallyScorable``: all that may be found is embedded first, then queries as they come.

        A query whose similarities are not all finite has no nearest text: its example is NaN.
        """
        pairs = self._pairs()
        queries, answers = [pair.summary or "" for pair in pairs], [pair.text for pair in pairs]
        if self.query == "document":
            queries, answers = answers, queries
        found_among = self._embed(model, answers)
        ids = unique(pair.id for pair in pairs[self.calibration_pairs :])
        for chosen in batches(order, _QUERIES):
            places = [self.calibration_pairs + index for index in chosen]
            similarity = self._embed(model, [queries[place] for place in places]) @ found_among.t()
            nearest, is_known = similarity.argmax(dim=1), similarity.isfinite().all(dim=1)
            rows = zip(nearest.tolist(), places, is_known.tolist())
            hits = [float(found == place) if known else math.nan for found, place, known in rows]
            names = tuple(ids[index] for index in chosen)
            yield Score(float(np.mean(hits)), 0.0, tuple(hits), ids=names, chance=1 / len(pairs))

    def excerpts(self, model: LoadedModel) -> Excerpts:
        """See ``objectives.tasks.overlap.Exposed``: a pair is known by its document."""
        pairs, copies = self._read()
        rows = list(map(_excerpt, pairs))
        return Excerpts(rows[: self.calibration_pairs], rows[self.calibration_pairs :], copies)

    def _pairs(self) -> list[Document]:
        return self._read()[0]

    def _read(self) -> tuple[list[Document], list[tuple[str, str]]]:
        """The pool, and copies of calibration pairs that are left out of it, with what they are copies of."""
        documents: Sequence[Document] = self.corpus.documents()
        given = [document for document in documents if document.summary]
        pairs, calibration = given[: self.calibration_pairs], list(map(_excerpt, given[: self.calibration_pairs]))
        held = {key: each.name for each in calibration for key in each.keys}
        copies: list[tuple[str, str]] = []
        for pair in given[self.calibration_pairs :]:
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

    def _embed(self, model: Runner, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors [texts, hidden]. Sorted by length inside, so that little is padded."""
        import torch

        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors: list[torch.Tensor] = [torch.empty(0)] * len(texts)
        with torch.inference_mode():
            for start in range(0, len(order), self.batch_rows):
                rows = order[start : start + self.batch_rows]
                for row, vector in zip(rows, embed(model, [texts[row] for row in rows], self.tokens)):
                    vectors[row] = vector
        return torch.stack(vectors)


def _excerpt(pair: Document) -> Excerpt:
    return excerpt(pair.id, [pair.text])


def embed(model: Runner, texts: Sequence[str], tokens: int) -> torch.Tensor:
    """Mean-pooled, normalised embeddings [texts, hidden], fp32."""
    from torch.nn.functional import normalize

    batch = model.tokenizer(list(texts), truncation=True, max_length=tokens, padding=True, return_tensors="pt")
    require_rows(model, int(batch["input_ids"].max()))
    batch = batch.to(model.device)
    hidden = model.encode(batch["input_ids"], batch["attention_mask"]).float()
    mask = batch["attention_mask"].unsqueeze(2)
    return normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def _same_length_batches(model: LoadedModel, texts: Sequence[str], tokens: int, rows: int) -> list[torch.Tensor]:
    """Token ids of ``texts``, batched with texts of exactly the same length: no padding enters a moment.

    Shuffled, so that the first batches hold long and short texts alike. Deterministic.
    """
    import torch

    by_length: dict[int, list[list[int]]] = {}
    for text in texts:
        ids = model.tokenizer(text, truncation=True, max_length=tokens)["input_ids"]
        by_length.setdefault(len(ids), []).append(ids)
    batches = [
        torch.tensor(same[start : start + rows])
        for _, same in sorted(by_length.items())
        for start in range(0, len(same), rows)
    ]
    random.Random(0).shuffle(batches)
    return batches
