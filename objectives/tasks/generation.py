"""Answers in free text: the model writes on after a prompt, and what it writes is rated against accepted answers.

Writing is greedy, or a beam search, and ends at an end token, at a stop text, or after ``new_tokens`` tokens. Where
the tokenizer has a chat template, the prompt is what a user says in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import DataError
from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Banded, Readable
from objectives.settings import Count, Name
from objectives.tasks.batching import AHEAD, limit_of, same_length, source_target_batches
from objectives.tasks.beams import BeamSearch
from objectives.tasks.corpus_matching import CorpusMetric, CorpusRating, Tokenize, metric_of, packages_of
from objectives.tasks.data.columns import accepted_of, list_of, texts_of
from objectives.tasks.data.rows import Row
from objectives.tasks.data.source import ROWS_FORBID, FromRows
from objectives.tasks.decoding import Ends, continuations, greedy
from objectives.tasks.length_band import LengthBand, bands, require_band, require_reachable, with_lengths
from objectives.tasks.matching import MeanRating, Rating
from objectives.tasks.partial_scores import Reader, batches, unique
from objectives.tasks.prompting import (
    answer_tokens,
    cut_remarks,
    has_chat_template,
    plain_tokens,
    prompt_tokens,
    shortened,
)
from objectives.types import Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


LONGEST = 1024
"""Tokens of prompt and answer where neither the task nor the model sets a limit."""


@dataclass(frozen=True)
class Request:
    """A prompt with the answers that are accepted."""

    row: Row
    prompt: str
    accepted: tuple[str, ...]


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class Generation(FromRows, Banded, Readable):
    """Scores what a decoder or an encoder-decoder writes.

    ``head``: which of the two, as the model is loaded. ``text``: the column with the prompt; ``doc_to_text``: a
    template in its place. ``target``: the column with the answer, or with a list of accepted ones; ``doc_to_target``: a
    template in its place. ``metric``: ``exact_match``, ``quasi_exact_match`` (SQuAD's), ``f1``, ``rouge1``, ``rouge2``
    or ``rougeL``, which are means of answers, or ``bleu`` or ``chrf``, which are of all answers together.
    ``bleu_tokenize``: how BLEU splits words. ``stop``: texts that end an answer. ``chat``: whether the prompt is put
    into the tokenizer's chat template; by default where it has one. A decoder's prompts are cut at their beginning, so
    that prompt and answer have at most ``tokens`` tokens, by default what the model holds and 1024 at most; the sources
    of an encoder-decoder are cut at their end. ``beams``: texts that are written at once to find the likeliest, 1 for
    none but the greedy one; ``length_penalty``: the power of a text's length that its log-probability is divided by.
    ``length_band``: the least and the largest share of the references' tokens that a feasible model writes, as [0.9,
    1.1]. An example is the rating of an answer, by its best reference; of BLEU and chrF it is that of the answer alone.
    """

    head: Literal["causal_lm", "seq2seq"] = "causal_lm"
    text: Name = "text"
    doc_to_text: str | None = None
    target: Name = "target"
    doc_to_target: str | None = None
    metric: Literal[Rating, CorpusRating] = "exact_match"
    bleu_tokenize: Tokenize = "13a"
    stop: tuple[Name, ...] = ()
    chat: bool | None = None
    new_tokens: Count = 64
    tokens: Count | None = None
    batch_rows: Count = 16
    beams: Count = 1
    length_penalty: float = 1.0
    length_band: LengthBand | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where no token would be left for the prompt, and for a band without width."""
        require_band(self.length_band)
        if self.head == "causal_lm" and self.new_tokens >= self.longest:
            most = f"tokens={self.tokens}" if self.tokens else f"{LONGEST}, or give more tokens"
            raise ValueError(f"new_tokens must be < {most}, got {self.new_tokens}")

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        read = () if self.tokens is None else (self.tokens,)
        if self.head == "causal_lm":
            return (*(Span(("tokens",), (tokens,)) for tokens in read), Span(("new_tokens",), (self.new_tokens, 1)))
        sources = (Span(("tokens",), (tokens,), "encoder") for tokens in read)
        return (*sources, Span(("new_tokens",), (self.new_tokens,)))

    @property
    @override
    def packages(self) -> tuple[str, ...]:
        return (*super().packages, *packages_of(self.metric))

    @property
    @override
    def bands(self) -> Mapping[str, LengthBand]:
        return bands(self.length_band)

    @override
    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        return [each.prompt for each in self._requests(rows)]

    @override
    def require_documents(self) -> None:
        self._metric()
        divided = self.divided()
        self._requests([*divided.calibration, *divided.scored])

    @override
    def remarks(self) -> tuple[str, ...]:
        """Return how rows were divided, and how many answers are lists written as text, each of which is one answer."""
        scored = self.divided().scored
        cells = [row.values.get(self.target) for row in scored] if self.doc_to_target is None else []
        written = [cell for cell in cells if isinstance(cell, str) and list_of(cell) is not None]
        if not written:
            return super().remarks()
        said = f"task.target: {len(written)} of {len(scored)} answers are lists written as text, as {written[0][:40]}"
        return (*super().remarks(), f"{said}; each is one answer here, several are a list of jsonl or parquet")

    @property
    @override
    def longest(self) -> int:
        return self.tokens or LONGEST

    @override
    def texts(self) -> list[tuple[str, ...]]:
        return [(each.prompt,) for each in self._requests(self.divided().scored)]

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return prompts with their first accepted answers; an encoder-decoder is to write them."""
        requests = self._requests(self.divided().calibration)
        prompts = [self._prompt(model, each) for each in requests]
        answers = [answer_tokens(model, self.head, each.accepted[0]) for each in requests]
        if self.head == "seq2seq":
            return {
                "task": source_target_batches(prompts, [each[: self.new_tokens] for each in answers], self.batch_rows)
            }
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers)]
        most = self._most(model)
        return {"task": same_length([row[-most:] for row in rows], self.batch_rows)}

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        requests = self._requests(self.divided().scored)
        names = unique(each.row.place for each in requests)
        metric = self._metric()
        for chosen in batches(order, AHEAD if metric.is_mean else max(AHEAD, len(order))):
            asked = [requests[index] for index in chosen]
            answers = self.answers(model, asked)
            score = metric.score(answers, [each.accepted for each in asked])
            if self.length_band is not None:
                wanted = [each.accepted[0] for each in asked]
                score = with_lengths(score, answers, wanted, lambda text: len(plain_tokens(model, text)))
            yield replace(score, ids=tuple(names[index] for index in chosen))

    @override
    def losses(self, model: LoadedModel) -> Sequence[str]:
        first, last = (self._requests(rows) for rows in (self.divided().calibration, self.divided().scored))
        if self.length_band is not None:
            references = [len(plain_tokens(model, each.accepted[0])) for each in last]
            require_reachable(self.length_band, references, self.new_tokens)
        return self._cuts(model, first, last)

    def _cuts(self, model: Reader, first: Sequence[Request], last: Sequence[Request]) -> tuple[str, ...]:
        """Return lines on the prompts that are cut, and on what is cut of the calibration rows."""
        end = "end" if self.head == "seq2seq" else "beginning"
        prompts, calibrating = ([len(self._whole_prompt(model, each)) for each in some] for some in (last, first))
        answers = [len(answer_tokens(model, self.head, each.accepted[0])) for each in first]
        found = cut_remarks("task.tokens", prompts, self._room(model), f"prompts are cut at their {end}")
        if self.head == "seq2seq":
            sources = cut_remarks(
                "task.tokens", calibrating, self._room(model), "calibration sources are cut at their end"
            )
            targets = cut_remarks(
                "task.new_tokens", answers, self.new_tokens, "calibration targets are cut at their end"
            )
            return (*found, *sources, *targets)
        whole = [prompt + max(answer, self.new_tokens) for prompt, answer in zip(calibrating, answers)]
        what = "calibration rows are cut at their beginning"
        return (*found, *cut_remarks("task.tokens", whole, self._most(model), what))

    def answers(self, model: Runner, requests: Sequence[Request]) -> list[str | None]:
        """Return what the model writes after each prompt; None where its logits are not finite."""
        prompts = [self._prompt(model, each) for each in requests]
        ends = Ends.of(model, self.stop)
        write = greedy if self.beams == 1 else BeamSearch(self.beams, self.length_penalty)
        rows = max(1, self.batch_rows // self.beams)
        written = continuations(model, prompts, self.new_tokens, ends, rows, write)
        return [None if text is None else text.strip() for text in written]

    def _metric(self) -> MeanRating | CorpusMetric:
        return metric_of(self.metric, self.bleu_tokenize)

    # ---- rows

    def _requests(self, rows: Sequence[Row]) -> list[Request]:
        prompts = texts_of(rows, "task.text", self.text, self.doc_to_text)
        accepted = accepted_of(rows, "task.target", self.target, self.doc_to_target)
        return [Request(*each) for each in zip(rows, prompts, accepted)]

    def _most(self, model: Reader) -> int:
        return limit_of(model.tokenizer, self.tokens, LONGEST)

    def _room(self, model: Reader) -> int:
        """Return how many tokens a prompt may have. Raises DataError where none would be left."""
        room = self._most(model) if self.head == "seq2seq" else self._most(model) - self.new_tokens
        if room < 1:
            raise DataError(
                f"task.new_tokens: {self.new_tokens} of the {self._most(model)} tokens that the model holds, no room"
            )
        return room

    def _prompt(self, model: Reader, request: Request) -> Sequence[int]:
        return shortened(model, self.head, self._whole_prompt(model, request), self._room(model))

    def _whole_prompt(self, model: Reader, request: Request) -> list[int]:
        has_template = has_chat_template(model.tokenizer)
        if self.chat and not has_template:
            raise DataError(
                "task.chat: this tokenizer has no chat template; task.chat=null takes one where there is one"
            )
        ids = prompt_tokens(model, self.head, request.prompt, has_template and self.chat is not False)
        if not ids:
            raise DataError(f"task.text: {request.row.place} has the prompt {request.prompt!r}, which has no tokens")
        return ids
