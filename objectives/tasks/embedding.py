"""Embeds texts as unit vectors: the mean of the last hidden states, as all-MiniLM was trained.

Importing the module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives.tasks.partial_scores import batches, require_rows

if TYPE_CHECKING:
    import torch

    from objectives.protocols.running import Runner


def embed(model: Runner, texts: Sequence[str], tokens: int) -> torch.Tensor:
    """Return the mean-pooled, normalised embeddings [texts, hidden], fp32."""
    from torch.nn.functional import normalize

    batch = model.tokenizer(list(texts), truncation=True, max_length=tokens, padding=True, return_tensors="pt")
    require_rows(model, int(batch["input_ids"].max()))
    batch = batch.to(model.device)
    hidden = model.encode(batch["input_ids"], batch["attention_mask"]).float()
    mask = batch["attention_mask"].unsqueeze(2)
    return normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def embeddings(model: Runner, texts: Sequence[str], tokens: int, rows: int) -> torch.Tensor:
    """Return the unit vectors [texts, hidden] of any number of texts, ``rows`` at a time.

    They are batched by length, so that little is padded, and cut at ``tokens``.
    """
    import torch

    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    vectors: list[torch.Tensor] = [torch.empty(0)] * len(texts)
    with torch.inference_mode():
        for places in batches(order, rows):
            for place, vector in zip(places, embed(model, [texts[place] for place in places], tokens)):
                vectors[place] = vector
    return torch.stack(vectors)
