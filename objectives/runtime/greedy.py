"""Greedy generation, from the two passes that every runner has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.types import Lap, Runner


def generate(
    runner: Runner, ids: Tensor, new_tokens: int, mask: Tensor | None = None, lap: Lap | None = None
) -> Tensor:
    """See ``objectives.types.Runner``."""
    logits, cache = runner.prefill(ids, mask)
    written = [logits.argmax(dim=-1, keepdim=True)]
    if lap is not None:
        lap("prefill", cache)
    while len(written) < new_tokens:
        logits, cache = runner.step(written[-1], cache)
        written.append(logits.argmax(dim=-1, keepdim=True))
        if lap is not None:
            lap("decode", cache)
    return torch.cat(written, dim=1)
