"""Classes of words: names of people and places, parts of speech. A row is a list of words with a list of tags.

The model's answer for a word is that of its first token. Where tags mark spans (``B-PER I-PER O``, as IOB2 does), a
span counts as found if both its ends and its type are right: F1 over all spans of all rows, as seqeval and the CoNLL
shared task of 2003 (https://aclanthology.org/W03-0419) compute it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.optional import Labelled
from objectives.settings import Count, Name, Texts
from objectives.tasks.batching import AHEAD, limit_of
from objectives.tasks.data.columns import list_of, values_of
from objectives.tasks.data.rows import Row, require_right
from objectives.tasks.data.source import ROWS_FORBID, ForEncoders
from objectives.tasks.encoding import Encoded, answers, calibration_batches, encode_words, rows_cut
from objectives.tasks.labels import places_of, require_classes
from objectives.tasks.partial_scores import Reader, batches, unique
from objectives.tasks.resampling import replicates_of, spread
from objectives.tasks.tagged_spans import OUTSIDE, f1, span_counts
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


@dataclass(frozen=True)
class Tagged:
    """The words of a row with their right tags, by number."""

    row: Row
    words: Sequence[str]
    tags: Sequence[int]


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class TokenClassification(ForEncoders, Labelled):
    """Scores a token classifier.

    ``words``: the column with a list of words, or with words between spaces; ``tags``: the column with their tags, by
    name or by number; ``labels``: names of the model's classes in its order, where its own are of no use. ``metric``:
    ``f1`` of spans, over all rows, or the ``accuracy`` of words. Words that are not read are in no
    span, and wrong where words are counted. An example is a row: its own F1, or its share of right words.
    """

    words: Name = "words"
    tags: Name = "tags"
    labels: Texts = ()
    metric: Literal["f1", "accuracy"] = "f1"
    batch_rows: Count = 16

    @property
    @override
    def head(self) -> Head:
        return "token_classifier"

    @override
    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        return [" ".join(words) for words, _ in self._columns(rows)]

    @override
    def require_documents(self) -> None:
        divided = self.divided()
        self._columns([*divided.calibration, *divided.scored])

    @override
    def require_labels(self, classes: Sequence[str]) -> None:
        self._tagged_by(classes, self.divided().scored)

    @override
    def texts(self) -> list[tuple[str, ...]]:
        return [(" ".join(words),) for words, _ in self._columns(self.divided().scored)]

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return the calibration rows; compression is fitted to the classes of the first token of every word."""
        rows = self._read(model, self.divided().calibration)
        firsts = [set(_firsts(each).values()) for each in rows]
        marks = [[place in first for place in range(len(each.ids))] for each, first in zip(rows, firsts)]
        return {"task": calibration_batches(rows, self.batch_rows, marks)}

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        rows = self._tagged(model, self.divided().scored)
        names = unique(each.row.place for each in rows)
        classes = require_classes(model.labels, self.labels)
        for chosen in batches(order, AHEAD if self.metric == "accuracy" else max(1, len(order))):
            asked = [rows[index] for index in chosen]
            found = self._answers(model, asked)
            part = _words(rows, asked, found) if self.metric == "accuracy" else _spans(classes, asked, found)
            yield replace(part, ids=tuple(names[index] for index in chosen))

    @override
    def losses(self, model: LoadedModel) -> Sequence[str]:
        scored = self.divided().scored
        self._tagged(model, scored)
        return rows_cut(self._read(model, scored))

    # ---- rows

    def _read(self, model: Reader, rows: Sequence[Row]) -> list[Encoded]:
        """Return what the model reads of every row. Raises DataError for rows without any token."""
        read = self._encoded(model, [words for words, _ in self._columns(rows)])
        wrong = [row.wrong("has words without any token") for row, each in zip(rows, read) if not _firsts(each)]
        require_right("task.words", wrong, len(rows), "; the tokenizer knows none of their characters: take them out")
        return read

    def _tagged(self, model: LoadedModel | Runner, rows: Sequence[Row]) -> list[Tagged]:
        return self._tagged_by(model.labels, rows)

    def _tagged_by(self, named: Sequence[str], rows: Sequence[Row]) -> list[Tagged]:
        classes = require_classes(named, self.labels)
        columns = self._columns(rows)
        places = iter(places_of(
            [row for row, (_, tags) in zip(rows, columns) for _ in tags], [tag for _, tags in columns for tag in tags],
            classes, key="task.tags",
        ))  # fmt: skip
        return [Tagged(row, words, [next(places) for _ in tags]) for row, (words, tags) in zip(rows, columns)]

    def _columns(self, rows: Sequence[Row]) -> list[tuple[list[str], list[Any]]]:
        """Return the words and the tags of every row. Raises DataError where a row has not one tag for each word."""
        words, tags = values_of(rows, "task.words", self.words), values_of(rows, "task.tags", self.tags)
        pairs = [([str(word) for word in _listed(each)], _listed(other)) for each, other in zip(words, tags)]
        wrong = [
            row.wrong(f"has {len(first)} words and {len(second)} tags")
            for row, (first, second) in zip(rows, pairs)
            if len(first) != len(second) or not first
        ]
        require_right("task.tags", wrong, len(rows), "; one tag for each word is expected")
        return pairs

    def _encoded(self, model: Reader, rows: Sequence[Sequence[str]]) -> list[Encoded]:
        return encode_words(model, rows, limit_of(model.tokenizer, self.tokens))

    def _answers(self, model: Runner, rows: Sequence[Tagged]) -> list[list[int | None] | None]:
        """Return the class of every word, None for one that was not read; None for a row with logits without end."""
        read = self._read(model, [each.row for each in rows])
        found: list[list[int | None] | None] = []
        for one, row, each in zip(answers(model, read, self.batch_rows), read, rows):
            classes, first = one.argmax(dim=-1).tolist(), _firsts(row)
            of_words = [classes[first[word]] if word in first else None for word in range(len(each.words))]
            found.append(of_words if bool(one.isfinite().all()) else None)
        return found


def _firsts(row: Encoded) -> dict[int, int]:
    """Return the place of the first token of every word that is read."""
    return {word: place for place, word in reversed(list(enumerate(row.words))) if word is not None}


def _listed(value: Any) -> list[Any]:
    found = list_of(value)
    return str(value).split() if found is None else found


Answered = Sequence[Sequence[int | None] | None]
"""The class of every word of every row: None for a word that was not read, and for a row without finite logits."""


def _words(rows: Sequence[Tagged], asked: Sequence[Tagged], answered: Answered) -> Score:
    """Return the score of words: a row weighs as much as it has words, beside the mean of all ``rows``."""
    mean = float(np.mean([len(each.tags) for each in rows]))
    tags = np.concatenate([each.tags for each in rows])
    shares = tuple(
        math.nan if found is None else sum(one == other for one, other in zip(each.tags, found)) / mean
        for each, found in zip(asked, answered)
    )
    return Score(float(np.mean(shares)), 0.0, shares, chance=float(np.bincount(tags).max() / len(tags)))


def _spans(classes: Sequence[str], asked: Sequence[Tagged], answered: Answered) -> Score:
    """Return F1 over the spans of all rows; an example is a row's own."""
    known = [found for found in answered if found is not None]
    if len(known) < len(answered):
        return Score(math.nan, math.nan, tuple(math.nan if found is None else 0.0 for found in answered))
    counts = np.array([
        span_counts([classes[tag] for tag in each.tags], [_name(classes, tag) for tag in found])
        for each, found in zip(asked, known)
    ])  # fmt: skip
    replicates = replicates_of(counts, f1)
    return Score(float(f1(counts.sum(axis=0))), spread(replicates), tuple(f1(counts).tolist()), replicates=replicates)


def _name(classes: Sequence[str], tag: int | None) -> str:
    return OUTSIDE if tag is None else classes[tag]
