"""What models read when they are timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from objectives.types import Runner


def prompts(model: Runner, rows: int, tokens: int) -> torch.Tensor:
    """Pseudo-random ids [rows, tokens], the same for every candidate; content does not change the work."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.vocabulary, (rows, tokens), generator=generator)
    return ids.to(model.device)
