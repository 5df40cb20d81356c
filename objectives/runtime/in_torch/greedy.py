"""Greedy generation, from the two passes that every runner has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.protocols.running import EndPhase, Runner


def generate(
    runner: Runner, ids: Tensor, out: Tensor, mask: Tensor | None = None, end_phase: EndPhase | None = None
) -> None:
    """Fill ``out`` as ``Runner.generate`` does: by one prefill, then a step for every further token."""
    cache, token = None, ids
    for place in range(out.shape[1]):
        logits, cache = runner.step(token, cache) if place else runner.prefill(ids, mask)
        token = logits.argmax(dim=-1, keepdim=True)
        out[:, place : place + 1] = token
        if end_phase is not None:
            end_phase("decode" if place else "prefill", cache)
