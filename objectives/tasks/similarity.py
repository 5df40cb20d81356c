"""Similarity of two texts: whether pairs that people find more alike have embeddings that are more alike.

The score is the correlation of the cosine of both embeddings with a number that people gave: of ranks (Spearman), as
STS benchmarks report it (Reimers et al. 2016, https://aclanthology.org/C16-1009), or of values (Pearson). It is of all
pairs together, so bootstrap replicates say how sure it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import DataError
from objectives.settings import Name
from objectives.tasks.batching import limit_of, same_length
from objectives.tasks.correlation import Correlation, correlation_score
from objectives.tasks.data.columns import numbers_of, texts_of
from objectives.tasks.data.rows import Row
from objectives.tasks.data.source import ROWS_FORBID, ForEncoders
from objectives.tasks.embedding import embeddings
from objectives.tasks.encoding import Encoded, encode, rows_cut
from objectives.tasks.partial_scores import Reader, unique
from objectives.tasks.progress import steps
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


@dataclass(frozen=True)
class Pair:
    """Two texts, and how alike people find them."""

    row: Row
    text: str
    other: str
    label: float


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class Similarity(ForEncoders):
    """Scores an encoder on pairs of texts.

    ``text``, ``text_b``: the columns with the texts; ``doc_to_text``, ``doc_to_text_b``: templates in their place.
    ``label``: the column with a number, the higher the more alike. ``metric``: ``spearman`` or ``pearson``; below 0 the
    accuracy is 0, and ``extra`` holds both as they are. An example is the cosine of a pair.
    """

    text: Name = "text"
    doc_to_text: str | None = None
    text_b: Name = "text_b"
    doc_to_text_b: str | None = None
    label: Name = "label"
    metric: Correlation = "spearman"

    @property
    @override
    def head(self) -> Head:
        return "encoder"

    @override
    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        return [f"{pair.text}\n{pair.other}" for pair in self._pairs(rows)]

    @override
    def require_documents(self) -> None:
        divided = self.divided()
        self._pairs(divided.calibration)
        scored = self._pairs(divided.scored)
        if len({pair.label for pair in scored}) < 2:
            raise DataError(
                f"task.label: all {len(scored)} scored rows of {self.data} have {scored[0].label:g} for "
                f"{self.label!r}: nothing correlates with that"
            )

    @override
    def texts(self) -> list[tuple[str, ...]]:
        return [(text,) for pair in self._pairs(self.divided().scored) for text in (pair.text, pair.other)]

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return both texts of every calibration pair."""
        rows = self._encoded(model, self._pairs(self.divided().calibration))
        return {"task": same_length([row.ids for row in rows], self.batch_rows)}

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        pairs = self._pairs(self.divided().scored)
        names = unique(pair.row.place for pair in pairs)
        chosen = [pairs[index] for index in order]
        first, second = (
            embeddings(model, texts, self._most(model), self.batch_rows)
            for texts in steps([[pair.text for pair in chosen], [pair.other for pair in chosen]], 2 * len(chosen))
        )
        cosines = (first.double() * second.double()).sum(dim=1).cpu().numpy()
        score = correlation_score(self.metric, cosines, np.array([pair.label for pair in chosen]))
        yield replace(score, ids=tuple(names[index] for index in order))

    @override
    def losses(self, model: LoadedModel) -> Sequence[str]:
        return rows_cut(self._encoded(model, self._pairs(self.divided().scored)))

    def _encoded(self, model: Reader, pairs: Sequence[Pair]) -> list[Encoded]:
        return encode(model, [text for pair in pairs for text in (pair.text, pair.other)], None, self._most(model))

    def _most(self, model: Reader) -> int:
        return limit_of(model.tokenizer, self.tokens)

    # ---- rows

    def _pairs(self, rows: Sequence[Row]) -> list[Pair]:
        texts = texts_of(rows, "task.text", self.text, self.doc_to_text)
        others = texts_of(rows, "task.text_b", self.text_b, self.doc_to_text_b)
        return [Pair(*each) for each in zip(rows, texts, others, numbers_of(rows, "task.label", self.label))]
