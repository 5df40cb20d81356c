"""Search in texts of a user's own: an encoder looks for the documents that are relevant to a query.

Documents are ranked by the cosine of their embeddings with the query's, as sentence-transformers and BEIR score it
(Thakur et al. 2021, https://arxiv.org/abs/2104.08663). What can be found is every document of the file, also those
whose own queries calibrate or are not scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import DataError
from objectives.settings import Name
from objectives.tasks.batching import limit_of, same_length
from objectives.tasks.data.columns import texts_of
from objectives.tasks.data.files import read_rows
from objectives.tasks.data.rows import Row
from objectives.tasks.data.source import ROWS_FORBID, ForEncoders
from objectives.tasks.embedding import embeddings
from objectives.tasks.encoding import Encoded, encode, rows_cut
from objectives.tasks.overlap import Excerpt, Excerpts, excerpt
from objectives.tasks.partial_scores import Reader, batches, merged, unique
from objectives.tasks.progress import expected
from objectives.tasks.ranking import RankMetric, guessed, ranks, rated
from objectives.tasks.relevance import Documents, Query, document_ids, ids_of, queries_of
from objectives.types import Head, Score

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner

_QUERIES = 128
"""Queries that are embedded at a time: enough to sort them by length."""


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class InformationRetrieval(ForEncoders):
    """Scores an encoder on queries.

    ``query``: the column with the query; ``doc_to_query``: a template in its place. ``text``: the column with the
    document; ``doc_to_text``: a template in its place. Without ``documents`` a row is a query with its document. With
    it, documents are the rows of that file, named by the column ``document_id``, and the column ``relevant`` of a query
    holds an id or a list of them. ``metric``: ``accuracy@1``, ``@5`` or ``@10`` (whether a relevant document is among
    the first), ``mrr`` or ``ndcg@10``. Texts are cut at ``tokens``, by default what the model holds and 512 at most.
    """

    query: Name = "query"
    doc_to_query: str | None = None
    text: Name = "text"
    doc_to_text: str | None = None
    documents: Name | None = None
    document_id: Name = "id"
    relevant: Name = "relevant"
    metric: RankMetric = "accuracy@1"

    @property
    @override
    def head(self) -> Head:
        return "encoder"

    @override
    def require_documents(self) -> None:
        self._read()

    @override
    def texts(self) -> list[tuple[str, ...]]:
        documents, queries, _ = self._read()
        return [(text,) for text in (*documents, *(query.text for query in queries))]

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return the calibration queries and their documents, as both are embedded."""
        rows = self._encoded(model, self._calibrating())
        return {"task": same_length([row.ids for row in rows], self.batch_rows)}

    @override
    def evaluate(self, model: Runner) -> Score:
        """Score ``model``; an example is the metric of a query."""
        documents, queries, _ = self._read()
        return merged(list(self._scores(model, documents, queries, range(len(queries)))))

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        """Yield scores of a few queries at a time; all documents are embedded before the first."""
        documents, queries, _ = self._read()
        yield from self._scores(model, documents, queries, order)

    @override
    def excerpts(self, model: LoadedModel) -> Excerpts:
        """Return the queries that calibrate and those that are scored."""
        documents, queries, left_out = self._read()
        texts = [*documents, *(query.text for query in queries)]
        scored = [excerpt(query.row.place, [query.text]) for query in queries]
        return Excerpts(self._held(), scored, left_out, rows_cut(self._encoded(model, texts)))

    def _scores(
        self, model: Runner, documents: Sequence[str], queries: Sequence[Query], order: Sequence[int]
    ) -> Iterator[Score]:
        names = unique(query.row.place for query in queries)
        guess = self._guessed(queries, len(documents))
        with expected(len(documents) + len(order)):
            found_among = self._vectors(model, documents).t()
            for chosen in batches(order, _QUERIES):
                asked = [queries[index] for index in chosen]
                similarities = (
                    (self._vectors(model, [query.text for query in asked]) @ found_among).double().cpu().numpy()
                )
                examples = tuple(
                    rated(self.metric, ranks(row, query.relevant)) for row, query in zip(similarities, asked)
                )
                named = tuple(names[index] for index in chosen)
                yield Score(float(np.mean(examples)), 0.0, examples, ids=named, chance=guess)

    def _vectors(self, model: Runner, texts: Sequence[str]) -> Tensor:
        return embeddings(model, texts, limit_of(model.tokenizer, self.tokens), self.batch_rows)

    def _encoded(self, model: Reader, texts: Sequence[str]) -> list[Encoded]:
        return encode(model, texts, None, limit_of(model.tokenizer, self.tokens))

    # ---- rows

    def _read(self) -> tuple[Sequence[str], list[Query], list[tuple[str, str]]]:
        """Return the documents, the queries, and those left out, each with the calibration row that it copies."""
        rows = read_rows(self.data, "task.data")
        documents = self._documents(rows)
        if len(documents.texts) < 2:
            raise DataError(f"task.text: {self.documents or self.data} holds one document, which every query finds")
        asked = queries_of(rows, self._queries(rows), self._places(documents, rows))
        held = {key: each.name for each in self._held() for key in each.keys}
        queries, left_out = [], []
        for text in dict.fromkeys(self._queries(self.divided().scored)):
            copied = [held[key] for key in excerpt("", [text]).keys if key in held]
            if copied:
                left_out.append((asked[text].row.place, copied[0]))
            else:
                queries.append(asked[text])
        if not queries:
            raise DataError(
                f"task.query: all {len(left_out)} scored queries of {self.data} calibrate too; take them out of one of "
                "the files, or let fewer rows calibrate: task.calibration_rows"
            )
        return documents.texts, queries, left_out

    def _documents(self, rows: Sequence[Row]) -> Documents:
        """Return the documents that can be found; ``rows``: those of ``data``, which hold them without another file."""
        if self.documents is None:
            texts = self._texts(rows)
            return Documents(texts, texts)
        rows = read_rows(self.documents, "task.documents")
        return Documents(document_ids(rows, "task.document_id", self.document_id), self._texts(rows))

    def _places(self, documents: Documents, rows: Sequence[Row]) -> list[tuple[int, ...]]:
        if self.documents is None:
            return documents.places(rows, [[text] for text in self._texts(rows)], self.data)
        return documents.places(rows, ids_of(rows, "task.relevant", self.relevant), self.documents)

    def _calibrating(self) -> list[str]:
        rows = self.divided().calibration
        found = self._documents(rows)
        places = dict.fromkeys(place for some in self._places(found, rows) for place in some)
        return [*self._queries(rows), *(found.texts[place] for place in places)]

    def _held(self) -> list[Excerpt]:
        rows = self.divided().calibration
        return [excerpt(row.place, [text]) for row, text in zip(rows, self._queries(rows))]

    def _queries(self, rows: Sequence[Row]) -> list[str]:
        return texts_of(rows, "task.query", self.query, self.doc_to_query)

    def _texts(self, rows: Sequence[Row]) -> list[str]:
        return texts_of(rows, "task.text", self.text, self.doc_to_text)

    def _guessed(self, queries: Sequence[Query], documents: int) -> float:
        """Return what a random order reaches on average."""
        found = {count: guessed(self.metric, count, documents) for count in {len(query.relevant) for query in queries}}
        return float(np.mean([found[len(query.relevant)] for query in queries]))
