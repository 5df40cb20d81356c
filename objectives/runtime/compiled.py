"""A model whose forward pass is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import StaticCache

from objectives.models import LoadedModel
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.fp32 import Fp32Linear
from objectives.packing.linear import PackedLinear
from objectives.runtime import greedy
from objectives.types import Lap


@dataclass
class Compiled(LoadedModel):
    """See ``objectives.types.Runner``. ``forward``: the compiled pass; ``seconds``: that compiling took."""

    forward: Any = None
    seconds: float = 0.0
    room: int = 0

    @classmethod
    def of(cls, model: LoadedModel, mode: str) -> Compiled:
        """Shares its tensors with ``model``, which stays as it is."""
        given = {field.name: getattr(model, field.name) for field in fields(LoadedModel)}
        given["module"] = model.sharing().module
        for part in given["module"].modules():
            if isinstance(part, PackedLinear) and not isinstance(part, (Bf16Linear, Fp32Linear)):
                disable: Any = torch.compiler.disable  # has no types
                setattr(part, "forward", disable(part.forward))  # noqa: B010  Inductor fails on some of these kernels
        compiled = torch.compile(given["module"].forward, mode=mode, dynamic=True)
        return cls(**given, forward=compiled)

    def encode(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``objectives.types.Runner``."""
        hidden: Tensor = self.forward(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden

    def logits(self, ids: Tensor) -> Tensor:
        """See ``objectives.types.Runner``."""
        found: Tensor = self.forward(input_ids=ids, use_cache=False).logits
        return found

    def _pass(self, ids: Tensor, cache: Any, mask: Tensor | None, seen: Tensor | None = None) -> tuple[Tensor, Any]:
        if mask is not None or not (self.room or isinstance(cache, StaticCache)):
            return super()._pass(ids, cache, mask, seen)  # padded, or of unknown length: not compiled
        cache = cache or StaticCache(config=self.module.config, max_cache_len=self.room)
        output = self.forward(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1], output.past_key_values

    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, lap: Lap | None = None) -> None:
        """See ``objectives.types.Runner``."""
        self.room = ids.shape[1] + out.shape[1]
        try:
            greedy.generate(self, ids, out, mask, lap)
        finally:
            self.room = 0

    def weights(self, dense_weights: int) -> Mapping[str, float]:
        """See ``objectives.types.Runner``."""
        return {**super().weights(dense_weights), "conversion_seconds": self.seconds}
