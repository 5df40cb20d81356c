"""Makes token batches of rows of unlike lengths, so that little is padded. Importing the module imports no torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from objectives.tasks.partial_scores import batches

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.models.batch import Batch

AHEAD = 64
"""Examples that are sorted by length at a time: a race may stop after each such group."""


USUAL = 512
"""Tokens of a row where neither the task nor the model sets a limit."""


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text with the special tokens that the tokenizer puts before it, and none after."""
    return prompts_ids(tokenizer, [text])[0]


def prompts_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return what :func:`prompt_ids` does for each of many texts, which are tokenised at once."""
    rows: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
    ends = {token: tokenizer.decode([token]) for token in {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}}
    return [
        ids[:-1] if ids and ids[-1] in ends and not text.endswith(ends[ids[-1]]) else ids
        for ids, text in zip(rows, texts)
    ]


def limit_of(tokenizer: Any, tokens: int | None, usual: int = USUAL) -> int:
    """Return how many tokens a row may have: ``tokens``, by default what the model holds and ``usual`` at most.

    A checkpoint's tokenizer knows how many positions its model has.
    """
    return min(int(tokenizer.model_max_length), tokens or usual)


def by_length(lengths: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Return the places of ``lengths`` in batches of ``size``, the longest first, so that neighbours are alike."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    return batches(order, size)


def padded(rows: Sequence[Sequence[int]], filling: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Return ids and mask [rows, tokens]: every row is filled up to the longest with the token ``filling``."""
    import torch

    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), filling)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for place, row in enumerate(rows):
        where = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[place, where] = torch.tensor(row)
        mask[place, where] = 1
    return ids, mask


def same_length(rows: Sequence[Sequence[int]], size: int) -> list[Tensor]:
    """Return the rows in batches of exactly equal length, at most ``size`` a batch, so that no padding is learned from.

    The batches are shuffled, always in the same way, so that the first of them hold long and short rows alike.
    """
    import torch

    chosen = alike([(len(row),) for row in rows], size)
    return [torch.tensor([rows[place] for place in places]) for places in chosen if len(rows[places[0]])]


def alike(lengths: Sequence[tuple[int, ...]], size: int) -> list[list[int]]:
    """Return the places of rows in groups of exactly equal lengths, at most ``size`` a group, shuffled always alike."""
    same: dict[tuple[int, ...], list[int]] = {}
    for place, each in enumerate(lengths):
        same.setdefault(each, []).append(place)
    groups = [
        places[start : start + size] for _, places in sorted(same.items()) for start in range(0, len(places), size)
    ]
    random.Random(0).shuffle(groups)
    return groups


def source_target_batches(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], size: int) -> list[Batch]:
    """Return what an encoder-decoder reads and is to write, in batches of rows of exactly equal lengths."""
    import torch

    from objectives.models.batch import Batch

    groups = alike([(len(source), len(target)) for source, target in zip(sources, targets)], size)
    return [
        Batch(
            torch.tensor([sources[place] for place in group]), targets=torch.tensor([targets[place] for place in group])
        )
        for group in groups
    ]
