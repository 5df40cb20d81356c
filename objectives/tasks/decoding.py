"""Writes continuations for scoring: prompts of like length run together, and each ends when it is finished.

What a decoder continues is its prompt; an encoder-decoder begins anew, and the prompt is its source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from objectives.protocols.encoder_decoder import ReadsSources
from objectives.protocols.running import SelectsRows
from objectives.tasks.batching import by_length, padded

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.protocols.running import Runner

_MARGIN = 16
"""Characters at the beginning of a part of a text that may not be the text's: a space less, a letter cut in two."""


@dataclass(frozen=True)
class Ends:
    """The ends of a text: token ids, and texts, of which none is part of the answer."""

    tokens: frozenset[int]
    texts: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Runner, texts: Sequence[str] = ()) -> Ends:
        """Return the ends of what ``model`` writes: its own end tokens, the tokenizer's, and ``texts``."""
        return cls(frozenset({model.tokenizer.eos_token_id, *model.end_tokens} - {None}), tuple(texts))

    def cut(self, text: str) -> str:
        """Return ``text`` up to the first of the texts that end it."""
        places = [place for end in self.texts if (place := text.find(end)) >= 0]
        return text[: min(places)] if places else text

    def is_in(self, text: str) -> bool:
        """Return whether ``text`` holds one of the texts that end it."""
        return any(end in text for end in self.texts)

    def is_written(self, tokenizer: Any, ids: Sequence[int]) -> bool:
        """Return whether the text of ``ids`` holds one of the texts that end it."""
        return bool(self.texts) and self.is_in(tokenizer.decode(ids, skip_special_tokens=True))

    def is_new(self, tokenizer: Any, ids: Sequence[int]) -> bool:
        """Return what :meth:`is_written` does, given that it is False without the last token.

        So only the end of the text is decoded, as far as the last token can have completed one of the texts.
        """
        if not self.texts:
            return False
        last = len(tokenizer.convert_ids_to_tokens(ids[-1]) or "")  # a model may have more rows than there are tokens
        needed = max(map(len, self.texts)) + _MARGIN
        count = needed
        while count < len(ids):
            text = tokenizer.decode(ids[-count:], skip_special_tokens=True)
            if len(text) >= needed + last:
                return self.is_in(text) and self.is_written(tokenizer, ids)  # a text may begin otherwise in its middle
            count *= 2
        return self.is_written(tokenizer, ids)


Ids = list[int]
Write = Callable[["Runner", Sequence[Sequence[int]], int, Ends], list[Ids | None]]
"""The function that returns what is written after each prompt, given how many tokens at most and what ends a text;
None where a logit is not finite."""


def greedy(model: Runner, prompts: Sequence[Sequence[int]], new_tokens: int, ends: Ends) -> list[Ids | None]:
    """Write the likeliest token, again and again. See :data:`Write`."""
    found: list[Ids | None] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    finished: set[int] = set()
    logits, cache = started(model, prompts)
    for place in range(new_tokens):
        tokens = allowed(model, logits).argmax(dim=-1)
        for row, token, known in zip(running, tokens.tolist(), logits.isfinite().all(dim=-1).tolist()):
            if row not in finished:  # where a runner cannot select rows, all go on
                _append(found, row, token, known)
        finished |= {row for row in running if row not in finished and _ends(model.tokenizer, found[row], ends)}
        left = [at for at, row in enumerate(running) if row not in finished]
        if not left or place == new_tokens - 1:
            break
        running, tokens, cache = _select(model, running, tokens, cache, left)
        logits, cache = model.step(tokens.unsqueeze(1), cache)
    return found


def continuations(
    model: Runner, prompts: Sequence[Sequence[int]], new_tokens: int, ends: Ends, rows: int, write: Write = greedy
) -> list[str | None]:
    """Return the continuation of every prompt, at most ``new_tokens`` tokens, without what ended it.

    ``rows``: how many run at a time. A row whose logits are not finite gives None.
    """
    import torch

    written: list[str | None] = [None] * len(prompts)
    with torch.inference_mode():
        for batch in by_length([len(prompt) for prompt in prompts], rows):
            for place, ids in zip(batch, write(model, [prompts[place] for place in batch], new_tokens, ends)):
                if ids is not None:
                    kept = ids[:-1] if ids and ids[-1] in ends.tokens else ids
                    written[place] = ends.cut(model.tokenizer.decode(kept, skip_special_tokens=True))
    return written


def started(model: Runner, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Any]:
    """Return the logits of the first token after every prompt [rows, vocabulary], and the cache to go on from."""
    ids, mask = padded(prompts, model.tokenizer.pad_token_id or 0, left=model.head != "seq2seq")
    return model.prefill(ids.to(model.device), None if bool(mask.all()) else mask.to(model.device))


def allowed(model: Runner, scores: Tensor) -> Tensor:
    """Return ``scores`` [rows, vocabulary] without those of tokens that the model must never write."""
    import torch

    forbidden = model.opening.forbidden if isinstance(model, ReadsSources) else ()
    places = torch.tensor(forbidden, dtype=torch.int64, device=scores.device)
    return scores.index_fill(1, places, -float("inf")) if forbidden else scores


def _append(found: list[Ids | None], row: int, token: int, known: bool) -> None:
    held = found[row]
    if held is not None:
        found[row] = [*held, token] if known else None


def _ends(tokenizer: Any, ids: Ids | None, ends: Ends) -> bool:
    """Return whether a text ends with its last token."""
    return ids is None or ids[-1] in ends.tokens or ends.is_new(tokenizer, ids)


def _select(
    model: Runner, running: list[int], tokens: Tensor, cache: Any, left: list[int]
) -> tuple[list[int], Tensor, Any]:
    """Return what goes on: the rows at ``left`` alone where the runner can select them, else all."""
    if len(left) == len(running) or not isinstance(model, SelectsRows):
        return running, tokens, cache
    selected = model.select(cache, left)
    if selected is None:
        return running, tokens, cache
    return [running[at] for at in left], tokens[left], selected
