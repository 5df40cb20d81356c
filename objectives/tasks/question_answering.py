"""Answers that stand in a text: the model says where one begins and where it ends, as SQuAD asks.

F1 of words and exact match are those of SQuAD (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250); a text that
is too long is read in windows that overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import DataError
from objectives.settings import Count, Name, Natural
from objectives.tasks.answer_spans import Window, answer_of, best_span, texts_of_answers, windows
from objectives.tasks.batching import AHEAD, limit_of
from objectives.tasks.data.columns import texts_of, values_of
from objectives.tasks.data.rows import Row, WrongRow, columns_of, require_right
from objectives.tasks.data.source import ROWS_FORBID, ForEncoders
from objectives.tasks.encoding import answers, calibration_batches
from objectives.tasks.matching import best, rate_of
from objectives.tasks.partial_scores import Reader, batches, unique
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner

LONGEST = 384
"""Tokens of a window where neither the task nor the model sets a limit, as SQuAD's models were trained."""


@dataclass(frozen=True)
class Question:
    """A question about a text, with the answers that are accepted; without any it has none."""

    row: Row
    question: str
    context: str
    accepted: tuple[str, ...]


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class QuestionAnswering(ForEncoders):
    """Scores a model with a span head.

    ``question``: the column with the question; ``doc_to_question``: a template in its place. ``context``: the column
    with the text; ``answer``: the column with an answer, a list of accepted ones, or SQuAD's ``answers``. ``metric``:
    ``f1`` of words or ``exact_match``. ``unanswerable``: whether a question may have no answer (an empty list).
    ``tokens``: the length of a window; ``stride``: tokens that neighbours share; ``answer_tokens``: the longest answer.
    An example is the best rating of an answer.
    """

    usual: ClassVar[int] = LONGEST

    question: Name = "question"
    doc_to_question: str | None = None
    context: Name = "context"
    answer: Name = "answer"
    metric: Literal["f1", "exact_match"] = "f1"
    unanswerable: bool = False
    stride: Natural = 128
    answer_tokens: Count = 30
    batch_rows: Count = 16

    @property
    @override
    def head(self) -> Head:
        return "question_answering"

    @override
    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        return [f"{each.question} {each.context}" for each in self._questions(rows)]

    @override
    def require_documents(self) -> None:
        divided = self.divided()
        every = self._questions([*divided.scored, *divided.calibration])
        lacking = _without_their_answer(every)
        if len(lacking) == len(every):
            require_right("task.answer", lacking, len(every), "; task.answer and task.context name columns")

    @override
    def remarks(self) -> tuple[str, ...]:
        """Return how rows were divided, and how many of them no span of the text can answer in full."""
        scored = self._questions(self.divided().scored)
        lacking = _without_their_answer(scored)
        if not lacking:
            return super().remarks()
        said = f"task.answer: {len(lacking)} of {len(scored)} scored rows cannot be answered in full: {lacking[0].line}"
        return (*super().remarks(), said)

    @override
    def texts(self) -> list[tuple[str, ...]]:
        return [(each.question, each.context) for each in self._questions(self.divided().scored)]

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return the windows of the calibration rows; compression is fitted to where the model finds answers."""
        cut = [one for each in self._questions(self.divided().calibration) for one in self._windows(model, each)]
        marks = [[*([self.unanswerable or one.marks[0]]), *one.marks[1:]] for one in cut]
        return {"task": calibration_batches([one.encoded for one in cut], self.batch_rows, marks)}

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        questions = self._questions(self.divided().scored)
        names = unique(each.row.place for each in questions)
        rate = rate_of("quasi_exact_match" if self.metric == "exact_match" else self.metric)
        for chosen in batches(order, AHEAD):
            asked = [questions[index] for index in chosen]
            rated = tuple(
                math.nan if answer is None else best(rate, answer, each.accepted or ("",))
                for each, answer in zip(asked, self.answers(model, asked))
            )
            yield Score(float(np.mean(rated)), 0.0, rated, ids=tuple(names[index] for index in chosen))

    def answers(self, model: Runner, questions: Sequence[Question]) -> list[str | None]:
        """Return the model's answer to every question, empty for none; None where its logits are not finite."""
        cut = [self._windows(model, each) for each in questions]
        flat = [one for some in cut for one in some]
        logits = answers(model, [one.encoded for one in flat], self.batch_rows)
        found = iter([best_span(one, each, self.answer_tokens) for one, each in zip(flat, logits)])
        return [
            answer_of(each.context, list(islice(found, len(some))), self.unanswerable)
            for each, some in zip(questions, cut)
        ]

    def _windows(self, model: Reader, each: Question) -> list[Window]:
        tokenizer = model.tokenizer
        if not tokenizer.is_fast:
            raise DataError(
                "model: its tokenizer cannot say which characters a token stands for (it is not a fast one)"
            )
        most = limit_of(tokenizer, self.tokens, LONGEST)
        asked = len(tokenizer(each.question, "", verbose=False)["input_ids"])
        if most - asked <= self.stride:
            raise DataError(
                f"task.tokens: {each.row.place}: a question of {asked} tokens leaves {most - asked} of {most} for the "
                f"text, and neighbouring windows share task.stride={self.stride}: give more tokens or a shorter stride"
            )
        return windows(model, each.question, each.context, most, self.stride)

    def _questions(self, rows: Sequence[Row]) -> list[Question]:
        questions = texts_of(rows, "task.question", self.question, self.doc_to_question)
        contexts = texts_of(rows, "task.context", self.context)
        return [Question(*each) for each in zip(rows, questions, contexts, self._accepted(rows))]

    def _accepted(self, rows: Sequence[Row]) -> list[tuple[str, ...]]:
        """Return the accepted answers of every row. Raises DataError for rows without any, where all must have one."""
        if self.unanswerable and self.answer in columns_of(rows):
            return [texts_of_answers(row.values.get(self.answer)) for row in rows]
        accepted = [texts_of_answers(value) for value in values_of(rows, "task.answer", self.answer)]
        wrong = [row.wrong("has no answer") for row, each in zip(rows, accepted) if not each]
        require_right("task.answer", wrong, len(rows), "; task.unanswerable=true takes such questions")
        return accepted


def _without_their_answer(questions: Sequence[Question]) -> list[WrongRow]:
    """Return the rows none of whose answers stands in the text, in whatever case and with whatever white space."""
    return [
        each.row.wrong(f"has the answer {each.accepted[0][:40]!r}, its text does not")
        for each in questions
        if each.accepted and not any(_plain(answer) in _plain(each.context) for answer in each.accepted)
    ]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
