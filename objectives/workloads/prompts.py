"""Makes what models read when they are timed: anything, unless what they write decides how fast they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from objectives.protocols.running import Runner


@runtime_checkable
class Particular(Protocol):
    """A runner whose speed depends on the text."""

    def prompts(self, rows: int, tokens: int) -> torch.Tensor:
        """Return ids of real text [rows, tokens], other ones at every call."""


def prompts(model: Runner, rows: int, tokens: int) -> torch.Tensor:
    """Return pseudo-random ids [rows, tokens], the same for every candidate: content does not change the work.

    Where it does, the runner has texts of its own (:class:`Particular`).
    """
    if isinstance(model, Particular):
        return model.prompts(rows, tokens).to(model.device)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.vocabulary, (rows, tokens), generator=generator)
    return ids.to(model.device)
