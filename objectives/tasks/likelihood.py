"""Log-likelihoods of continuations, in as few passes as they need.

A pass over a text gives the likelihood of every token in it. So continuations that begin alike share one pass, and the
last token of a continuation is never read: the choices yes and no of one prompt need one pass over the prompt alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from objectives.tasks.batching import by_length, padded, prompts_ids
from objectives.tasks.partial_scores import Reader, require_rows

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.protocols.running import Runner

Tokens = tuple[int, ...]
Pair = tuple[Sequence[int], Sequence[int]]
"""The token ids of a prompt, at least one, and those of a continuation, at least one."""


def start_token(tokenizer: Any) -> int:
    """Return the token that stands before a text which nothing else precedes."""
    found = next((each for each in (tokenizer.bos_token_id, tokenizer.eos_token_id) if each is not None), 0)
    return int(found)


def pairs_of(model: Reader, asked: Sequence[tuple[str, str]]) -> list[Pair]:
    """Return the tokens of every prompt and those of the continuation after it; the latter may be none.

    As in lm-evaluation-harness, spaces at the end of the prompt belong to the continuation, and both are tokenised
    together. A prompt of several continuations is tokenised by itself once. Raises Unsupported for a token that the
    model does not embed.
    """
    starts = list(dict.fromkeys(prompt.rstrip(" ") for prompt, _ in asked))
    lengths = dict(zip(starts, map(len, prompts_ids(model.tokenizer, starts))))
    wholes = prompts_ids(model.tokenizer, [prompt + continuation for prompt, continuation in asked])
    require_rows(model, max((max(whole) for whole in wholes if whole), default=0))
    nothing = [start_token(model.tokenizer)]
    cuts = (lengths[prompt.rstrip(" ")] for prompt, _ in asked)
    return [(whole[:cut] or nothing, whole[cut:]) for whole, cut in zip(wholes, cuts)]


def log_likelihoods(model: Runner, pairs: Sequence[Pair], rows: int) -> list[float]:
    """Return the summed log-probability of every continuation after its prompt; NaN where logits are not finite.

    ``rows``: how many texts are read at a time.
    """
    return [found for found, _ in judged(model, pairs, rows)]


def judged(model: Runner, pairs: Sequence[Pair], rows: int) -> list[tuple[float, bool]]:
    """Return what :func:`log_likelihoods` does, and whether greedy writing would give the continuation."""
    texts = [(*before, *after[:-1]) for before, after in pairs]
    wanted: dict[Tokens, list[int]] = {}
    for place, text in enumerate(_longest(texts)):
        wanted.setdefault(text, []).append(place)
    found = [(0.0, False)] * len(pairs)
    read = list(wanted)
    for batch in by_length([len(text) for text in read], rows):
        chosen = [read[place] for place in batch]
        firsts = [min(len(pairs[place][0]) for place in wanted[text]) - 1 for text in chosen]
        for text, first, logits in zip(chosen, firsts, _logits(model, chosen, firsts)):
            logs = logits.float().log_softmax(dim=-1)
            for place in wanted[text]:
                before, after = pairs[place]
                start = len(before) - 1 - first
                seen = logs[start : start + len(after)]
                taken = seen[range(len(after)), list(after)]
                found[place] = float(taken.double().sum()), seen.argmax(dim=-1).tolist() == list(after)
    return found


def _longest(texts: Sequence[Tokens]) -> list[Tokens]:
    """Return, for every text, the longest of all that begins with it."""
    covered: dict[Tokens, Tokens] = {}
    last: Tokens = ()
    for text in sorted(set(texts), reverse=True):  # what begins with a text follows it directly in this order
        last = last if last[: len(text)] == text else text
        covered[text] = last
    return [covered[text] for text in texts]


def _logits(model: Runner, texts: Sequence[Tokens], firsts: Sequence[int]) -> list[Tensor]:
    """Return, for every text, the logits [tokens, vocabulary] at its positions from ``firsts`` on.

    Padding stands on the right, which no token to the left sees: so a pass needs no mask, and attention is causal.
    """
    import torch

    ids, _ = padded(texts, model.tokenizer.pad_token_id or 0)
    begin = min(firsts)
    with torch.inference_mode():
        logits = model.logits(ids.to(model.device), begin)
    return [logits[row, first - begin : len(text) - begin] for row, (text, first) in enumerate(zip(texts, firsts))]
