"""Multiple choice: of several continuations of a prompt, the model takes the one that it finds likeliest.

The log-likelihood of a choice is that of its tokens after the prompt, as lm-evaluation-harness computes it: spaces at
the end of a prompt belong to the choice, and prompt and choice are tokenised together. Choices that begin alike share
one pass, and choices of one token, such as yes and no, need no pass of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import DataError
from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Readable
from objectives.settings import Count, Name, Texts
from objectives.tasks.batching import AHEAD, limit_of, same_length
from objectives.tasks.data.columns import list_of, rendered, texts_of, values_of
from objectives.tasks.data.rows import Row, require_right
from objectives.tasks.data.source import ROWS_FORBID, FromRows
from objectives.tasks.likelihood import Pair, log_likelihoods, pairs_of
from objectives.tasks.partial_scores import Reader, batches, unique
from objectives.tasks.prompting import cut_remarks
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


LONGEST = 1024
"""Tokens of prompt and choice where neither the task nor the model sets a limit."""
_TRUTHS = {True: ("true", "yes"), False: ("false", "no")}


@dataclass(frozen=True)
class Question:
    """A prompt with its choices; ``answer``: the place of the right one."""

    row: Row
    prompt: str
    choices: tuple[str, ...]
    answer: int


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class Choice(FromRows, Readable):
    """Scores a decoder on questions with choices.

    ``text``: the column with the prompt; ``doc_to_text``: a template in its place. ``choices``: the same texts for all
    rows, or the column with a list of them; ``doc_to_choice``: a template whose lines they are. ``answer``: the column
    with the right one, as its text, its number from 0, its letter, or true and false; ``doc_to_target``: a template in
    its place. ``delimiter`` stands between prompt and choice. ``metric``: ``accuracy``, or ``accuracy_norm``, which
    divides a log-likelihood by the characters of the choice; an example is 1 where the likeliest choice is right.
    Prompts are cut at their beginning to ``tokens`` tokens in all; by default what the model holds, and 1024 at most.
    """

    text: Name = "text"
    doc_to_text: str | None = None
    choices: Name | Texts = "choices"
    doc_to_choice: str | None = None
    answer: Name = "answer"
    doc_to_target: str | None = None
    delimiter: str = " "
    metric: Literal["accuracy", "accuracy_norm"] = "accuracy"
    tokens: Count | None = None
    batch_rows: Count = 8

    @property
    @override
    def head(self) -> Head:
        return "causal_lm"

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        return () if self.tokens is None else (Span(("tokens",), (self.tokens,)),)

    @override
    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        return ["\n".join([each.prompt, *sorted(each.choices)]) for each in self._questions(rows)]

    @override
    def require_documents(self) -> None:
        divided = self.divided()
        self._questions([*divided.calibration, *divided.scored])

    @property
    @override
    def longest(self) -> int:
        return self.tokens or LONGEST

    @override
    def texts(self) -> list[tuple[str, ...]]:
        return [(each.prompt,) for each in self._questions(self.divided().scored)]

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return prompts with their right answers."""
        questions, most = self._questions(self.divided().calibration), self._most(model)
        encoded = self._encoded(model, [(each, each.choices[each.answer]) for each in questions])
        pairs = [_cut(*pair, most) for pair in encoded]
        return {"task": same_length([[*before, *after] for before, after in pairs], self.batch_rows)}

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        questions = self._questions(self.divided().scored)
        names = unique(each.row.place for each in questions)
        guess = _guess(questions)
        for chosen in batches(order, AHEAD):
            asked = [questions[index] for index in chosen]
            hits = tuple(_hit(each, found, self.metric) for each, found in zip(asked, self._likelihoods(model, asked)))
            ids = tuple(names[index] for index in chosen)
            yield Score(float(np.mean(hits)), 0.0, hits, ids=ids, chance=guess)

    @override
    def losses(self, model: LoadedModel) -> Sequence[str]:
        pairs, most = self._all_encoded(model, self._questions(self.divided().scored)), self._most(model)
        longest = [max(sum(map(len, pair)) for pair in each) for each in pairs]
        return cut_remarks("task.tokens", longest, most, "prompts are cut at their beginning")

    # ---- rows

    def _questions(self, rows: Sequence[Row]) -> list[Question]:
        prompts = texts_of(rows, "task.text", self.text, self.doc_to_text)
        choices = self._choices(rows)
        if self.doc_to_target is not None:
            answers: Sequence[Any] = rendered(rows, "task.doc_to_target", self.doc_to_target)
        else:
            answers = list(map(self._meant, rows, values_of(rows, "task.answer", self.answer)))
        places = [_place(answer, among) for answer, among in zip(answers, choices)]
        wrong = [
            row.wrong(f"has the answer {str(answer)[:40]!r}, its choices are {list(among)!r}"[:200])
            for row, answer, among, place in zip(rows, answers, choices, places)
            if place is None
        ]
        require_right("task.answer", wrong, len(rows))
        return [Question(*each) for each in zip(rows, prompts, choices, places)]  # type: ignore[arg-type]

    def _meant(self, row: Row, answer: Any) -> Any:
        """Return an answer as text where the choices of its row are numbers: it is one of them, and no place."""
        listed = list_of(row.values.get(self.choices)) if isinstance(self.choices, str) else None
        numbers = listed and self.doc_to_choice is None and all(isinstance(each, (int, float)) for each in listed)
        return str(answer) if numbers and not isinstance(answer, bool) else answer

    def _choices(self, rows: Sequence[Row]) -> list[tuple[str, ...]]:
        if self.doc_to_choice is not None:
            made = rendered(rows, "task.doc_to_choice", self.doc_to_choice)
            found = [tuple(line for line in text.split("\n") if line.strip()) for text in made]
        elif isinstance(self.choices, tuple):
            found = [self.choices] * len(rows)
        else:
            values = values_of(rows, "task.choices", self.choices)
            found = [_listed(value) for value in values]
        wrong = [row.wrong(reason) for row, among in zip(rows, found) if (reason := _unfit(among)) is not None]
        require_right(
            "task.choices", wrong, len(rows), "; a list of texts is expected, or a template (task.doc_to_choice)"
        )
        return found

    # ---- tokens

    def _encoded(self, model: Reader, asked: Sequence[tuple[Question, str]]) -> list[Pair]:
        """Return, for every question with a choice, the tokens of the prompt and those of the choice after it.

        Raises DataError for a choice without tokens, and for one that leaves no room for its prompt.
        """
        pairs = pairs_of(model, [(question.prompt, self.delimiter + choice) for question, choice in asked])
        most = self._most(model)
        for (question, choice), (_, after) in zip(asked, pairs):
            named = f"task.choices: {question.row.place}: the choice {choice[:30]!r}"
            if not after:
                raise DataError(f"{named} has no tokens after its prompt")
            if len(after) >= most:
                raise DataError(
                    f"{named} has {len(after)} tokens, with its prompt at most {most} are read (task.tokens, or the "
                    "model's positions); shorten it, or leave the row out"
                )
        return pairs

    def _all_encoded(self, model: Reader, questions: Sequence[Question]) -> list[list[Pair]]:
        """Return the tokens of every choice of every question."""
        pairs = iter(self._encoded(model, [(each, choice) for each in questions for choice in each.choices]))
        return [list(islice(pairs, len(each.choices))) for each in questions]

    def _most(self, model: Reader) -> int:
        return limit_of(model.tokenizer, self.tokens, LONGEST)

    def _likelihoods(self, model: Runner, questions: Sequence[Question]) -> list[list[float]]:
        """Return the log-likelihood of every choice of every question."""
        most = self._most(model)
        pairs = [_cut(*pair, most) for some in self._all_encoded(model, questions) for pair in some]
        found = iter(log_likelihoods(model, pairs, self.batch_rows))
        return [list(islice(found, len(each.choices))) for each in questions]


def _listed(value: Any) -> tuple[str, ...]:
    """Return the choices of a row; a missing one is empty, and what is no list has none."""
    return tuple("" if each is None else str(each) for each in list_of(value) or ())


def _unfit(choices: Sequence[str]) -> str | None:
    """Return what is wrong with the choices of a row; None where nothing is."""
    if len(choices) < 2:
        return f"has {len(choices)} choices, at least 2 are needed"
    empty = [place for place, choice in enumerate(choices) if not choice.strip()]
    if empty:
        return f"has nothing as choice {empty[0]}"
    twice = [choice for choice in choices if choices.count(choice) > 1]
    return f"has the choice {twice[0][:40]!r} {choices.count(twice[0])} times" if twice else None


def _cut(before: Sequence[int], after: Sequence[int], most: int) -> Pair:
    """Cut a prompt at its beginning, so that it and the choice have at most ``most`` tokens."""
    return before[-max(1, most - len(after)) :], after


def _place(answer: Any, choices: Sequence[str]) -> int | None:
    """Return the place of the right choice: by its text, its number from 0, or its letter; None where it is none.

    A number that is no text counts as a place, also where some choice has the same digits. True and false are the
    choices that say so, or yes and no, in any case.
    """
    if isinstance(answer, bool):
        folded = [choice.strip().casefold() for choice in choices]
        said = [word for word in _TRUTHS[answer] if word in folded]
        return folded.index(said[0]) if said else None
    if isinstance(answer, (int, float)):
        return int(answer) if answer in range(len(choices)) else None
    text = str(answer).strip()
    stripped = [choice.strip() for choice in choices]
    if text in stripped:
        return stripped.index(text)
    place = int(text) if text.isdecimal() else ascii_uppercase.find(text.upper()) if len(text) == 1 else -1
    return place if 0 <= place < len(choices) else None


def _hit(question: Question, likelihoods: Sequence[float], metric: str) -> float:
    """Return whether the likeliest choice is the right one; NaN where a likelihood is not finite."""
    if not all(map(math.isfinite, likelihoods)):
        return math.nan
    lengths = [len(choice) if metric == "accuracy_norm" else 1 for choice in question.choices]
    return float(int(np.argmax([found / length for found, length in zip(likelihoods, lengths)])) == question.answer)


def _guess(questions: Sequence[Question]) -> float:
    """Return the accuracy of the better of two guesses: any choice, or always the place that is right most often."""
    any_choice = float(np.mean([1 / len(each.choices) for each in questions]))
    return max(any_choice, float(np.bincount([each.answer for each in questions]).max()) / len(questions))
