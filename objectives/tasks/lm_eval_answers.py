"""Answers the requests of lm-eval's tasks by our runner, batched as our own tasks are; no model of lm-eval is needed.

Its three kinds of request are the log-likelihood of a continuation, that of a whole text, and a text that is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from objectives.errors import DataError
from objectives.tasks.batching import prompt_ids
from objectives.tasks.decoding import Ends, continuations
from objectives.tasks.likelihood import Pair, judged, pairs_of, start_token
from objectives.tasks.partial_scores import Reader, require_rows
from objectives.tasks.progress import one_by_one, steps

if TYPE_CHECKING:
    from objectives.protocols.running import Runner

_NEW_TOKENS = 256
"""Tokens that lm-eval lets a model write where a task does not say."""


def answered(model: Runner, instances: Sequence[Any], tokens: int, rows: int) -> dict[int, Any]:
    """Return the model's answer to every instance of lm-eval, by its ``id``; None or NaN where logits are not finite.

    ``tokens``: the longest text that is read; ``rows``: how many at a time.
    """
    by_kind: dict[str, list[Any]] = {}
    for instance in instances:
        by_kind.setdefault(instance.request_type, []).append(instance)
    found: dict[int, Any] = {}
    for asked in steps(by_kind.values(), len(instances)):
        given = _ANSWERS[asked[0].request_type](model, [instance.args for instance in asked], tokens, rows)
        found |= {id(instance): answer for instance, answer in zip(asked, given)}
    return found


def lengths_of(model: Reader, instances: Sequence[Any], tokens: int) -> list[int]:
    """Return how many tokens each instance asks to read; what is beyond ``tokens`` is cut. Whole texts are never cut.

    The room of an answer that is written counts, and the last token of a continuation does not, as nobody reads it.
    """
    by_kind = {
        kind: [each.args for each in instances if each.request_type == kind]
        for kind in ("loglikelihood", "generate_until")
    }
    rated = [len(before) + len(after) - 1 for before, after in _whole_pairs(model, by_kind["loglikelihood"])]
    written = [
        len(_prompt(model, prompt)) + _limits(settings, tokens)[0] for prompt, settings in by_kind["generate_until"]
    ]
    return [*rated, *written]


def _loglikelihood(model: Runner, asked: Sequence[Any], tokens: int, rows: int) -> list[tuple[float, bool]]:
    return judged(model, _pairs(model, asked, tokens), rows)


def _pairs(model: Runner, asked: Sequence[tuple[str, str]], tokens: int) -> list[Pair]:
    """Return the tokens of every context, cut at its beginning, and those of its continuation."""
    pairs = _whole_pairs(model, asked)
    return [(before[-max(1, tokens + 1 - len(after)) :], after) for before, after in pairs]


def _whole_pairs(model: Reader, asked: Sequence[tuple[str, str]]) -> list[Pair]:
    """Return the tokens of every context and of its continuation, to which all white space between them belongs."""
    starts = [context.rstrip() for context, _ in asked]
    rests = [context[len(start) :] + continuation for start, (context, continuation) in zip(starts, asked)]
    pairs = pairs_of(model, list(zip(starts, rests)))
    for (_, continuation), (_, after) in zip(asked, pairs):
        if not after:
            raise DataError(f"task.name: the continuation {continuation!r} has no tokens after its context")
    return pairs


def _loglikelihood_rolling(model: Runner, asked: Sequence[Any], tokens: int, rows: int) -> list[float]:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    prefix, sums = start_token(model.tokenizer), []
    for (text,) in one_by_one(asked):
        ids = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        require_rows(model, max(ids, default=0))
        windows = get_rolling_token_windows(ids, prefix, tokens, 1)
        pairs = [make_disjoint_window(window) for window in windows]
        sums.append(math.fsum(found for found, _ in judged(model, pairs, rows)))
    return sums


def _generate_until(model: Runner, asked: Sequence[Any], tokens: int, rows: int) -> list[str | None]:
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for place, (_, settings) in enumerate(asked):
        groups.setdefault(_limits(settings, tokens), []).append(place)
    found: list[str | None] = [None] * len(asked)
    for places in steps(groups.values(), len(asked)):
        new_tokens, until = _limits(asked[places[0]][1], tokens)
        prompts = [_prompt(model, asked[place][0])[-(tokens - new_tokens) :] for place in places]
        ends = Ends.of(model, until)
        for place, text in zip(places, continuations(model, prompts, new_tokens, ends, rows)):
            found[place] = text
    return found


def _prompt(model: Reader, context: str) -> list[int]:
    ids = prompt_ids(model.tokenizer, context) or [start_token(model.tokenizer)]
    require_rows(model, max(ids))
    return ids


def _limits(settings: Mapping[str, Any], tokens: int) -> tuple[int, tuple[str, ...]]:
    """Return how many tokens may be written, and the texts that end it. Raises DataError for drawn answers."""
    if settings.get("do_sample") or settings.get("temperature"):
        raise DataError("task.name: its answers are drawn (do_sample, temperature); here they are greedy")
    new_tokens = int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or _NEW_TOKENS)
    if new_tokens >= tokens:
        raise DataError(f"task.tokens: it writes up to {new_tokens} tokens, got {tokens} for prompt and answer")
    until = settings.get("until") or ()
    return new_tokens, (until,) if isinstance(until, str) else tuple(until)


_ANSWERS: Mapping[str, Callable[[Runner, Sequence[Any], int, int], Sequence[Any]]] = {
    "loglikelihood": _loglikelihood,
    "loglikelihood_rolling": _loglikelihood_rolling,
    "generate_until": _generate_until,
}
