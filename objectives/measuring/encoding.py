"""Encoding: one forward pass over a batch of texts, as for embeddings, classification or retrieval."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID, Count
from objectives.types import Device, Head, Timing

if TYPE_CHECKING:
    from objectives.models import LoadedModel


@settings(frozen=True, kw_only=True, config=FORBID)
class Encoding:
    """``batch_size`` texts of ``tokens`` each."""

    batch_size: Count = 1
    tokens: Count = 128

    @property
    def head(self) -> Head:
        """Drives encoders."""
        return "encoder"

    def run(self, model: LoadedModel, device: Device) -> Timing:
        """See ``objectives.types.Workload``."""
        import torch

        module = model.module
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, module.config.vocab_size, (self.batch_size, self.tokens), generator=generator)
        ids = ids.to(module.device)
        with torch.inference_mode():
            device.synchronize()
            start = perf_counter()
            module(input_ids=ids)
            device.synchronize()
            return Timing(latency=(perf_counter() - start,), items=self.batch_size)
