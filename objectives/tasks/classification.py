"""Classes of texts, or of pairs of texts: sentiment, topic, language, entailment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import DataError
from objectives.protocols.optional import Labelled
from objectives.settings import Name, Texts
from objectives.tasks.batching import AHEAD, limit_of
from objectives.tasks.confusion import measured, of_answers
from objectives.tasks.data.columns import texts_of, values_of
from objectives.tasks.data.rows import Row
from objectives.tasks.data.source import ROWS_FORBID, ForEncoders
from objectives.tasks.encoding import Encoded, answers, calibration_batches, encode, rows_cut
from objectives.tasks.labels import places_of, require_classes
from objectives.tasks.partial_scores import Reader, batches, unique
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class Classification(ForEncoders, Labelled):
    """Scores a classifier.

    ``text``: the column with the text; ``doc_to_text``: a template in its place. ``text_b``, ``doc_to_text_b``: the
    second text, where pairs are classified. ``label``: the column with the class, by its name or its number from 0;
    ``labels``: names of the model's classes in its order, where its own are of no use. ``metric``: ``accuracy``,
    ``macro_f1`` or ``mcc``; an example is 1 where the answer is the right class, whatever the metric.
    """

    text: Name = "text"
    doc_to_text: str | None = None
    text_b: Name | None = None
    doc_to_text_b: str | None = None
    label: Name = "label"
    labels: Texts = ()
    metric: Literal["accuracy", "macro_f1", "mcc"] = "accuracy"

    @property
    @override
    def head(self) -> Head:
        return "classifier"

    @override
    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        return [" ".join(texts) for texts in self._joined(rows)]

    @override
    def require_documents(self) -> None:
        divided = self.divided()
        rows = [*divided.calibration, *divided.scored]
        self._texts(rows)
        values_of(rows, "task.label", self.label)

    @override
    def require_labels(self, classes: Sequence[str]) -> None:
        scored = self.divided().scored
        right = self._right_among(classes, scored)
        if len(set(right)) < 2:
            raise DataError(
                f"task.label: all {len(scored)} scored rows of {self.data} have the class {classes[right[0]]!r}, so a "
                "model that always answers it is right; rows of several classes are needed"
            )

    @override
    def texts(self) -> list[tuple[str, ...]]:
        return self._joined(self.divided().scored)

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return the calibration texts; compression is fitted to the classes that the model gives them."""
        return {"task": calibration_batches(self._encoded(model, self.divided().calibration), self.batch_rows)}

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        rows = self.divided().scored
        right, names = self._right(model, rows), unique(row.place for row in rows)
        guess = self._guess(right, len(model.labels))
        for chosen in batches(order, AHEAD if self.metric == "accuracy" else max(1, len(order))):
            answered = self._answers(model, [rows[index] for index in chosen])
            part = self._part([right[index] for index in chosen], answered, len(model.labels))
            yield replace(part, ids=tuple(names[index] for index in chosen), chance=guess)

    @override
    def losses(self, model: LoadedModel) -> Sequence[str]:
        scored = self.divided().scored
        self._right(model, scored)
        return rows_cut(self._encoded(model, scored))

    def _guess(self, right: Sequence[int], classes: int) -> float:
        """Return what always answering the commonest class gives."""
        commonest = int(np.bincount(right).argmax())
        if self.metric == "accuracy":
            return float(np.mean(np.asarray(right) == commonest))
        return of_answers(self.metric, right, [commonest] * len(right), classes)

    def _part(self, right: Sequence[int], answered: Sequence[int | None], classes: int) -> Score:
        hits = tuple(math.nan if place is None else float(place == other) for place, other in zip(answered, right))
        known = [place for place in answered if place is not None]
        if self.metric == "accuracy" or len(known) < len(answered):
            return Score(float(np.mean(hits)), 0.0, hits)
        found = measured(self.metric, right, known, classes)
        return Score(found.value, found.stderr, hits, replicates=found.replicates)

    def _joined(self, rows: Sequence[Row]) -> list[tuple[str, ...]]:
        texts, others = self._texts(rows)
        return [(text,) for text in texts] if others is None else list(zip(texts, others))

    def _right(self, model: LoadedModel | Runner, rows: Sequence[Row]) -> list[int]:
        return self._right_among(model.labels, rows)

    def _right_among(self, classes: Sequence[str], rows: Sequence[Row]) -> list[int]:
        """Return the right class of every row. Raises DataError for a label that the model does not know."""
        return places_of(rows, values_of(rows, "task.label", self.label), require_classes(classes, self.labels))

    def _answers(self, model: Runner, rows: Sequence[Row]) -> list[int | None]:
        """Return the likeliest class of every row; None where its logits are not finite."""
        logits = answers(model, self._encoded(model, rows), self.batch_rows)
        return [int(one.argmax()) if bool(one.isfinite().all()) else None for one in logits]

    def _encoded(self, model: Reader, rows: Sequence[Row]) -> list[Encoded]:
        return encode(model, *self._texts(rows), limit_of(model.tokenizer, self.tokens))

    def _texts(self, rows: Sequence[Row]) -> tuple[list[str], list[str] | None]:
        texts = texts_of(rows, "task.text", self.text, self.doc_to_text)
        if self.text_b is None and self.doc_to_text_b is None:
            return texts, None
        return texts, texts_of(rows, "task.text_b", self.text_b or "", self.doc_to_text_b)
