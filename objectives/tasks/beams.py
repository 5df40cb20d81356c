"""Beam search: of several texts that are written at once, the likeliest beginnings go on, and the likeliest text wins.

It is the search of transformers' ``generate`` with its defaults, token by token: of the continuations of a prompt's
beams the best go on, those that end are kept by their log-probability over their length to the power of
``length_penalty``, and a prompt is done when the best beam that is left is behind the worst of the texts kept.
The model gives logits and a cache whose rows can be exchanged; nothing else is asked of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from objectives.errors import Unsupported
from objectives.protocols.encoder_decoder import ReadsSources
from objectives.protocols.running import SelectsRows
from objectives.tasks.decoding import Ends, Ids, allowed, started

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.protocols.running import Runner

BEHIND = -1e9
"""The score of a beam that must not win."""


@dataclass(frozen=True)
class Beam:
    """A text that is being written, and the sum of its tokens' log-probabilities."""

    ids: tuple[int, ...]
    score: float


@dataclass
class Search:
    """The search of one prompt.

    ``running``: its beams, the best first; ``kept``: texts that ended, scored by length, the best first; ``forced``:
    tokens of every text that the decoder was given; ``known``: whether all logits were finite.
    """

    beams: int
    length_penalty: float
    forced: int
    running: list[Beam] = field(default_factory=lambda: [Beam((), 0.0)])
    kept: list[Beam] = field(default_factory=list)
    known: bool = True
    is_open: bool = True

    def advance(self, found: Sequence[tuple[float, int, int]], is_end: Sequence[bool]) -> list[int]:
        """Advance by a token, to the texts ``found``: (score, place of its beam, token), the best first.

        ``is_end``: which of them end a text. Return which of the beams before go on, one for each beam now.
        """
        grown = [(Beam((*self.running[beam].ids, token), score), beam) for score, beam, token in found]
        ended = [beam for (beam, _), end in zip(grown[: self.beams], is_end) if end]
        self._keep(ended)
        going = [each for each, end in zip(grown, is_end) if not end][: self.beams]
        lost = [(Beam(beam.ids, beam.score + BEHIND), place) for (beam, place), end in zip(grown, is_end) if end]
        going += lost[: self.beams - len(going)]
        self.running = [beam for beam, _ in going]
        best = self._by_length(self.running[0])
        self.is_open = len(self.kept) < self.beams or best > self.kept[-1].score
        return [place for _, place in going]

    def _keep(self, ended: Sequence[Beam]) -> None:
        kept = [*self.kept, *(Beam(beam.ids, self._by_length(beam)) for beam in ended)]
        self.kept = sorted(kept, key=lambda beam: -beam.score)[: self.beams]

    def _by_length(self, beam: Beam) -> float:
        return float(beam.score / (len(beam.ids) + self.forced) ** self.length_penalty)


@dataclass(frozen=True)
class BeamSearch:
    """Writes the text that a search with so many ``beams`` finds: a :data:`objectives.tasks.decoding.Write`."""

    beams: int
    length_penalty: float = 1.0

    def __call__(
        self, model: Runner, prompts: Sequence[Sequence[int]], new_tokens: int, ends: Ends
    ) -> list[Ids | None]:
        """Return the ids that are written after each prompt. Raises Unsupported for a cache of fixed rows."""
        import torch

        searches = [Search(self.beams, self.length_penalty, _forced(model)) for _ in prompts]
        running = searches
        logits, cache = started(model, prompts)
        for place in range(new_tokens):
            rows = self._advance(model, running, logits, ends, place == new_tokens - 1)
            running = [search for search in running if search.is_open and search.known]
            if not running or place == new_tokens - 1:
                break
            cache = _selected(model, cache, rows)
            tokens = torch.tensor([[beam.ids[-1]] for search in running for beam in search.running])
            logits, cache = model.step(tokens.to(model.device), cache)
        return [list(search.kept[0].ids) if search.known else None for search in searches]

    def _advance(self, model: Runner, running: Sequence[Search], logits: Tensor, ends: Ends, last: bool) -> list[int]:
        """Advance every search by one token, and return which rows of ``logits`` go on, of those still open."""
        rows: list[int] = []
        start = 0
        for search, known, found in self._continuations(model, running, logits, ends):
            width, search.known = len(search.running), known
            is_end = [last or _ends(model, search, each, ends) for each in found]
            places = search.advance(found, is_end)
            if search.is_open and known:
                rows += [start + place for place in places]
            start += width
        return rows

    def _continuations(
        self, model: Runner, running: Sequence[Search], logits: Tensor, ends: Ends
    ) -> Iterator[tuple[Search, bool, list[tuple[float, int, int]]]]:
        """Yield each search, whether its logits are finite, and its best continuations, more than may end."""
        import torch

        known = logits.isfinite().all(dim=-1)
        scores = torch.tensor([[beam.score] for search in running for beam in search.running], device=logits.device)
        sums = allowed(model, logits.float().log_softmax(dim=-1)) + scores
        vocabulary = logits.shape[-1]
        count = min(max(2, 1 + len(ends.tokens)) * self.beams, len(running[0].running) * vocabulary)
        best = sums.view(len(running), -1).topk(count)
        for search, finite, values, places in zip(
            running, known.view(len(running), -1).all(dim=-1).tolist(), best.values.tolist(), best.indices.tolist()
        ):
            yield search, finite, [(value, *divmod(at, vocabulary)) for value, at in zip(values, places)]


def _forced(model: Runner) -> int:
    """Return how many tokens of what counts as written the decoder is given."""
    return max(0, len(model.opening.tokens) - 1) if isinstance(model, ReadsSources) else 0


def _ends(model: Runner, search: Search, found: tuple[float, int, int], ends: Ends) -> bool:
    _, place, token = found
    if token in ends.tokens:
        return True
    beam = search.running[place]
    is_reached = ends.is_written if beam.score <= BEHIND / 2 else ends.is_new  # what is lost may hold a text already
    return is_reached(model.tokenizer, [*beam.ids, token])


def _selected(model: Runner, cache: Any, rows: Sequence[int]) -> Any:
    selected = model.select(cache, rows) if isinstance(model, SelectsRows) else None
    if selected is None:
        raise Unsupported("task.beams: this runtime cannot exchange the rows of its cache: task.beams=1")
    return selected
