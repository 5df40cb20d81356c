"""Knowledge graphs: how high the right entity ranks among all, for every triple with its head or its tail left out.

A triple becomes a sentence, and a decoder says how likely each sentence is. Ranks are filtered: entities that make
another known triple do not count (Bordes et al. 2013). Of equal likelihoods the rank is the middle one, pykeen's
"realistic" rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Readable
from objectives.settings import Count, Name, Natural
from objectives.tasks.batching import prompts_ids, same_length
from objectives.tasks.data.columns import rendered, texts_of
from objectives.tasks.data.files import read_rows
from objectives.tasks.data.rows import Row
from objectives.tasks.data.source import ROWS_FORBID, FromRows
from objectives.tasks.likelihood import log_likelihoods, start_token
from objectives.tasks.partial_scores import Reader, batches, require_rows
from objectives.tasks.prompting import cut_remarks
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner

Triple = tuple[str, str, str]
"""Head, relation, tail."""
_QUERIES = 4
"""Queries that are scored at a time: each reads a sentence for every entity."""


@dataclass(frozen=True)
class Query:
    """A triple whose entity at ``side`` (0 or 2) is looked for among ``entities``, but for those that are ``known``.

    The right one is the triple's own; ``known`` ones make other true triples.
    """

    triple: Triple
    side: Literal[0, 2]
    entities: Sequence[str]
    known: Set[str]

    @property
    def candidates(self) -> int:
        """Return how many entities can be found."""
        return len(self.entities) - len(self.known)

    def sentences(self) -> list[Triple]:
        """Return the triple with every entity in that place."""
        return [_replaced(self.triple, self.side, entity) for entity in self.entities if entity not in self.known]


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class LinkPrediction(FromRows, Readable):
    """Scores a decoder on triples.

    ``column_head``, ``column_relation``, ``column_tail``: the columns. ``doc_to_text``: the sentence of a triple, a
    template over ``head``, ``relation`` and ``tail``. ``known``: further files of true triples, which no rank counts.
    ``shots``: how many calibration triples with the same relation stand before each sentence, a line each.
    ``metric``: ``mrr``, the mean reciprocal rank, or ``hits@1``, ``hits@3``, ``hits@10``. Sentences are cut at their
    end to ``tokens`` tokens. An example is the reciprocal rank of a left-out entity, or whether it is a hit.
    """

    column_head: Name = "head"
    column_relation: Name = "relation"
    column_tail: Name = "tail"
    doc_to_text: Name = "{{head | replace('_', ' ')}} {{relation | replace('_', ' ')}} {{tail | replace('_', ' ')}}"
    known: tuple[Name, ...] = ()
    shots: Natural = 0
    metric: Literal["mrr", "hits@1", "hits@3", "hits@10"] = "mrr"
    tokens: Count = 64
    batch_rows: Count = 64

    @property
    @override
    def head(self) -> Head:
        return "causal_lm"

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        return (Span(("tokens",), ((1 + self.shots) * self.tokens,)),)

    @override
    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        return self._texts(self._triples(rows))

    @property
    @override
    def longest(self) -> int:
        return (1 + self.shots) * self.tokens

    @override
    def texts(self) -> list[tuple[str, ...]]:
        return [(text,) for text in self._texts(self._triples(self.divided().scored))]

    @override
    def require_documents(self) -> None:
        self._texts(self._triples(self.divided().scored)[:1])
        self._queries()

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return the sentences of the calibration triples."""
        texts = self._texts(self._triples(self.divided().calibration))
        return {"task": same_length(self._ids(model, texts), self.batch_rows)}

    @override
    def examples(self, model: Reader) -> int:
        """Return how many examples there are: two for each triple, without its head and without its tail."""
        return 2 * len(self.divided().scored)

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        names, queries = self._queries()
        counts = [query.candidates for query in queries]
        by_count = {count: self._guessed(count) for count in set(counts)}
        guess = float(np.mean([by_count[count] for count in counts]))
        for chosen in batches(order, _QUERIES):
            asked = [queries[index] for index in chosen]
            rated = tuple(self._rated(rank) for rank in self.ranks(model, asked))
            yield Score(float(np.mean(rated)), 0.0, rated, ids=tuple(names[index] for index in chosen), chance=guess)

    @override
    def losses(self, model: LoadedModel) -> Sequence[str]:
        whole = [len(ids) for ids in prompts_ids(model.tokenizer, self._texts(sorted(self._true())))]
        return cut_remarks("task.tokens", whole, self.tokens, "known sentences are cut at their end")

    def ranks(self, model: Runner, queries: Sequence[Query]) -> list[float]:
        """Return the rank of the right entity of every query; NaN where a likelihood is not finite."""
        triples = list(dict.fromkeys(triple for query in queries for triple in query.sentences()))
        before = self._before(model, {triple[1] for triple in triples})
        pairs = [(before[triple[1]], ids) for triple, ids in zip(triples, self._ids(model, self._texts(triples)))]
        likely = dict(zip(triples, log_likelihoods(model, pairs, self.batch_rows)))
        return [rank(likely[query.triple], [likely[triple] for triple in query.sentences()]) for query in queries]

    def _before(self, model: Reader, relations: Set[str]) -> dict[str, list[int]]:
        """Return, by relation, the tokens that stand before a sentence."""
        start = [start_token(model.tokenizer)]
        if not self.shots:
            return dict.fromkeys(relations, start)
        examples = self._triples(self.divided().calibration)
        shown = {name: [each for each in examples if each[1] == name][: self.shots] for name in relations}
        lines = {name: "".join(f"{text}\n" for text in self._texts(some)) for name, some in shown.items()}
        return {name: [*start, *model.tokenizer(text, verbose=False)["input_ids"]] for name, text in lines.items()}

    # ---- triples

    def _triples(self, rows: Sequence[Row]) -> list[Triple]:
        columns = (
            texts_of(rows, f"task.column_{part}", column)
            for part, column in (
                ("head", self.column_head), ("relation", self.column_relation), ("tail", self.column_tail),
            )
        )  # fmt: skip
        return list(zip(*columns))

    def _queries(self) -> tuple[list[str], list[Query]]:
        """Return the queries of the scored triples, head and tail of each, with their names."""
        scored, true = self.divided().scored, self._true()
        entities = tuple(sorted({entity for triple in true for entity in (triple[0], triple[2])}))
        found: dict[tuple[str | None, str, str | None], set[str]] = {}
        for head, relation, tail in true:
            found.setdefault((None, relation, tail), set()).add(head)
            found.setdefault((head, relation, None), set()).add(tail)
        names, queries = [], []
        for row, triple in zip(scored, self._triples(scored)):
            head, relation, tail = triple
            names += [f"{row.place}, head", f"{row.place}, tail"]
            queries += [
                Query(triple, 0, entities, found[None, relation, tail] - {head}),
                Query(triple, 2, entities, found[head, relation, None] - {tail}),
            ]
        return names, queries

    def _true(self) -> set[Triple]:
        """Return all triples that are known to be true; every entity is in one of them."""
        files = (self.data, *(each for each in (self.calibration_data, *self.known) if each))
        return {triple for file in files for triple in self._triples(read_rows(file, "task.known"))}

    def _texts(self, triples: Sequence[Triple]) -> list[str]:
        columns = ("head", "relation", "tail")
        rows = [Row(dict(zip(columns, triple)), self.data, place) for place, triple in enumerate(triples, start=1)]
        return rendered(rows, "task.doc_to_text", self.doc_to_text)

    def _ids(self, model: Reader, texts: Sequence[str]) -> list[list[int]]:
        rows = [ids[: self.tokens] for ids in prompts_ids(model.tokenizer, texts)]
        require_rows(model, max(map(max, rows)))
        return rows

    # ---- ranks

    def _rated(self, rank: float) -> float:
        if self.metric == "mrr" or math.isnan(rank):
            return 1 / rank
        return float(rank <= int(self.metric.removeprefix("hits@")))

    def _guessed(self, entities: int) -> float:
        """Return what a random order reaches on average."""
        return float(np.mean([self._rated(place) for place in range(1, entities + 1)]))


def rank(right: float, all_of_them: Sequence[float]) -> float:
    """Return the rank of the likelihood ``right`` among all, itself included; of equal ones the middle rank."""
    values = np.asarray(all_of_them)
    if not np.isfinite(values).all():
        return math.nan
    better, equal = int((values > right).sum()), int((values == right).sum())
    return better + (equal + 1) / 2


def _replaced(triple: Triple, side: Literal[0, 2], entity: str) -> Triple:
    return (entity, *triple[1:]) if side == 0 else (*triple[:2], entity)
