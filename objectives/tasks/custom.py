"""A metric of one's own: a function of the user's gets the model and the rows, and returns numbers.

The function returns one number for each row, whose mean is the accuracy, or one number for all rows. Of a single number
nobody can tell how far chance moves it. So a metric of all rows is better given as two functions: the first returns an
answer for each row, the second makes one number of answers and rows, and is asked again over resampled rows.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import DataError, NotFinite, TaskError
from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Bounded, Readable, Supplied
from objectives.protocols.task import PartiallyScorable, Task
from objectives.settings import Count, Name, class_path
from objectives.tasks.answers import asked, shown
from objectives.tasks.batching import AHEAD, USUAL, limit_of, same_length, source_target_batches
from objectives.tasks.data.columns import accepted_of, texts_of
from objectives.tasks.data.rows import Row
from objectives.tasks.data.source import ROWS_FORBID, FromFiles
from objectives.tasks.encoding import calibration_batches, encode
from objectives.tasks.finite import number
from objectives.tasks.model_under_test import LONGEST, ModelUnderTest
from objectives.tasks.own_metric import alone, resampled
from objectives.tasks.partial_scores import Reader, batches, merged, standard_error, unique
from objectives.tasks.progress import unknown
from objectives.tasks.prompting import answer_tokens, cut_remarks, prompt_tokens, shortened
from objectives.tasks.resampling import FEWEST, REPLICATES, replicates_by, spread
from objectives.types import ENCODERS, Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner

_SLACK = 1e-6
"""The distance by which rounding may take a number out of [0, 1]."""

Function = Callable[..., Any]


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class Custom(FromFiles, Task, Bounded, Supplied, Readable):
    """Scores a model by a function of the user's, all rows at once.

    ``function(model, rows)``: gets a :class:`ModelUnderTest` and the rows as dictionaries by column; it returns a
    number in [0, 1] for each row, or one for all. With ``metric`` it returns an answer for each row, whatever that is,
    and ``metric(answers, rows)`` returns one number in [0, 1]. It is asked again for ``replicates`` resamples of rows.
    ``text``: the column with what the model reads; ``doc_to_text``: a template in its place. ``target``: the column
    with what it should write, where there is one; ``doc_to_target``: a template in its place. Text and target
    calibrate; the function takes what it wants from the rows. ``tokens``: the longest text that the model reads,
    by default what it holds, and 1024 tokens at most.
    """

    function: Callable[..., Any]
    metric: Callable[..., Any] | None = None
    replicates: Annotated[int, Field(strict=True, ge=FEWEST)] = REPLICATES
    head: Head = "causal_lm"
    text: Name = "text"
    doc_to_text: str | None = None
    target: Name | None = None
    doc_to_target: str | None = None
    tokens: Count | None = None
    batch_rows: Count = 16

    def __post_init__(self) -> None:
        """Raise ValueError for functions that do not take two arguments."""
        _require_two("function", self.function, "model, rows")
        if self.metric is not None:
            _require_two("metric", self.metric, "answers, rows")

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        return () if self.tokens is None else (Span(("tokens",), (self.tokens,)),)

    @property
    @override
    def packages(self) -> tuple[str, ...]:
        """Return also those that functions of a user's own are likeliest to rate texts with."""
        return (*super().packages, "rouge-score", "sacrebleu")

    @override
    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        return self._texts(rows)

    @property
    @override
    def longest(self) -> int:
        return self.tokens or (USUAL if self.head in ENCODERS else LONGEST)

    @override
    def texts(self) -> list[tuple[str, ...]]:
        return [(text,) for text in self._texts(self.divided().scored)]

    @override
    def require_documents(self) -> None:
        divided = self.divided()
        self._texts([*divided.calibration, *divided.scored])
        self._targets(divided.calibration)

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return the texts of the calibration rows, each with its target where there is one."""
        rows, most = self.divided().calibration, limit_of(model.tokenizer, self.tokens, LONGEST)
        if self.head in ENCODERS:
            return {"task": calibration_batches(encode(model, self._texts(rows), None, most), self.batch_rows)}
        pairs = self._pairs(model, rows)
        if self.head == "seq2seq":
            sources = [shortened(model, self.head, prompt, most) for prompt, _ in pairs]
            both = zip(sources, (answer for _, answer in pairs))
            targets = [answer[:most] or list(source) for source, answer in both]  # without a target it is to copy
            return {"task": source_target_batches(sources, targets, self.batch_rows)}
        ids = [[*prompt, *answer][-most:] for prompt, answer in pairs]
        if not all(ids):
            raise DataError("task.text: a calibration row has no tokens")
        return {"task": same_length(ids, self.batch_rows)}

    @override
    def evaluate(self, model: Runner) -> Score:
        """Score ``model``. Raises TaskError where a function raises, or returns something else than it should."""
        rows = self.divided().scored
        subject = ModelUnderTest(model, self.tokens, self.batch_rows)
        answers = self._answers(subject, rows)
        subject.tell_cut()
        if self.metric is not None:
            return self._of_all(_listed("task.function", self.function, answers, rows, "answers"), rows)
        whole = number(answers)
        if whole is not None:
            accuracy = _checked("task.function", self.function, whole, "all rows")
            return Score(accuracy, 0.0, (accuracy,), ids=("all rows",))
        examples = self._numbers(answers, rows)
        error = standard_error(examples)
        return Score(float(np.mean(examples)), error, examples, ids=unique(row.place for row in rows))

    @override
    def losses(self, model: LoadedModel) -> Sequence[str]:
        return self._cuts(model, self.divided().calibration)

    def _cuts(self, model: Reader, rows: Sequence[Row]) -> tuple[str, ...]:
        """Return lines on the calibration rows that are cut; of scored rows the function's texts are counted."""
        most = limit_of(model.tokenizer, self.tokens, LONGEST)
        if self.head in ENCODERS:
            whole = [row.whole for row in encode(model, self._texts(rows), None, most)]
            return cut_remarks("task.tokens", whole, most, "calibration rows are cut at their end")
        pairs = self._pairs(model, rows)
        prompts, answers = ([len(each) for each in some] for some in zip(*pairs))
        if self.head == "seq2seq":
            sources = cut_remarks("task.tokens", prompts, most, "calibration sources are cut at their end")
            return (*sources, *cut_remarks("task.tokens", answers, most, "calibration targets are cut at their end"))
        joined = [prompt + answer for prompt, answer in zip(prompts, answers)]
        return cut_remarks("task.tokens", joined, most, "calibration rows are cut at their beginning")

    # ---- what the functions return

    def _answers(self, subject: ModelUnderTest, rows: Sequence[Row]) -> Any:
        with unknown(len(rows)):
            return asked("task.function", self.function, subject, _own(rows))

    def _numbers(self, answers: Any, rows: Sequence[Row]) -> tuple[float, ...]:
        listed = map(_as_number, _listed("task.function", self.function, answers, rows, "numbers"))
        return tuple(_checked("task.function", self.function, answer, row.place) for answer, row in zip(listed, rows))

    def _of_all(self, answers: Sequence[Any], rows: Sequence[Row]) -> Score:
        """Return the metric over all rows, with replicates. An example is the metric of a row alone, 0 without one."""
        assert self.metric is not None
        metric, values = self.metric, _own(rows)

        def of(places: Sequence[int]) -> Any:
            return asked("task.metric", metric, [answers[place] for place in places], [values[at] for at in places])

        accuracy = _checked("task.metric", metric, of(range(len(rows))), "all rows")
        with warnings.catch_warnings():  # one row, or the same row many times, may well have no correlation
            warnings.simplefilter("ignore")
            each = tuple(alone(of, place) for place in range(len(rows)))
            replicates = replicates_by(partial(resampled, of), len(rows), self.replicates)
        ids = unique(row.place for row in rows)
        return Score(accuracy, spread(replicates), each, ids=ids, replicates=replicates)

    # ---- rows

    def _texts(self, rows: Sequence[Row]) -> list[str]:
        return texts_of(rows, "task.text", self.text, self.doc_to_text)

    def _pairs(self, model: Reader, rows: Sequence[Row]) -> list[tuple[list[int], list[int]]]:
        """Return the tokens of each text and of its target, none where there is no target."""
        prompts = [prompt_tokens(model, self.head, text, chat=False) for text in self._texts(rows)]
        answers = [answer_tokens(model, self.head, target) if target else [] for target in self._targets(rows)]
        return list(zip(prompts, answers))

    def _targets(self, rows: Sequence[Row]) -> list[str]:
        if self.target is None and self.doc_to_target is None:
            return [""] * len(rows)
        return [each[0] for each in accepted_of(rows, "task.target", self.target or "", self.doc_to_target)]


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class CustomRows(Custom, PartiallyScorable):
    """Scores a model by a function whose number for a row depends on that row alone.

    The function gets some rows at a time, and a candidate whose accuracy is clearly above or below the floor is not
    scored on the others.
    """

    def __post_init__(self) -> None:
        """Raise ValueError for a metric of all rows, which cannot be scored row by row."""
        super().__post_init__()
        if self.metric is not None:
            raise ValueError("metric: a metric of all rows needs all of them at once: task=custom")

    @override
    def evaluate(self, model: Runner) -> Score:
        return merged(list(self.parts(model, range(len(self.divided().scored)))))

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        rows = self.divided().scored
        names = unique(row.place for row in rows)
        subject = ModelUnderTest(model, self.tokens, self.batch_rows)
        try:
            for chosen in batches(order, AHEAD):
                some = [rows[index] for index in chosen]
                examples = self._numbers(self._answers(subject, some), some)
                yield Score(float(np.mean(examples)), 0.0, examples, ids=tuple(names[index] for index in chosen))
        finally:  # also where a race was decided and the caller stops
            subject.tell_cut()


def _own(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the values of rows for a function that may change them: the rows themselves are kept for later."""
    return [deepcopy(dict(row.values)) for row in rows]


def _require_two(key: str, function: Function, wanted: str) -> None:
    try:
        inspect.signature(function).bind(None, None)
    except ValueError:  # written in C
        return
    except TypeError as error:
        given = ", ".join(inspect.signature(function).parameters)
        name = class_path(function)
        raise ValueError(f"{key}: {name} must take ({wanted}), it takes ({given})") from error


def _listed(key: str, function: Function, answers: Any, rows: Sequence[Row], what: str) -> list[Any]:
    """Return ``answers`` as a list of one for each row. Raises TaskError where it is none."""
    if isinstance(answers, (str, bytes, dict)) or not hasattr(answers, "__iter__"):
        raise TaskError(f"{key}: {class_path(function)} must return {what}, one for each row; got {shown(answers)}")
    listed = list(answers)
    if len(listed) != len(rows):
        raise TaskError(f"{key}: {class_path(function)} returned {len(listed)} {what} for {len(rows)} rows")
    return listed


def _as_number(value: Any) -> Any:
    """Return 1 and 0 for true and false, also of numpy and torch: whether a row is right is a number for it."""
    inner = value.item() if getattr(value, "ndim", 1) == 0 else value
    return float(inner) if isinstance(inner, bool) else value


def _checked(key: str, function: Function, value: Any, where: str) -> float:
    """Return a number in [0, 1]. Raises TaskError for anything else, and NotFinite for NaN and infinities."""
    plain = number(value)
    if plain is None:
        raise TaskError(f"{key}: {class_path(function)} must return a number for {where}, got {shown(value)}")
    if not math.isfinite(plain):
        raise NotFinite(f"{key}: {class_path(function)} returned {plain} for {where}")
    if not -_SLACK <= plain <= 1 + _SLACK:
        hint = "; is it in percent?" if 1 < plain <= 100 else ""
        raise TaskError(f"{key}: {class_path(function)} returned {plain:g} for {where}, expected within [0, 1]{hint}")
    return min(max(plain, 0.0), 1.0)
