"""Encoding: one forward pass over a batch of texts, as for embeddings, classification or retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings

from objectives.models.inspection.spans import Span
from objectives.protocols.running import PhaseObserver
from objectives.settings import FORBID, Count
from objectives.types import Head, Phase

if TYPE_CHECKING:
    from objectives.protocols.running import Runner


@settings(frozen=True, kw_only=True, config=FORBID)
class Encoding:
    """``batch_size`` texts of ``tokens`` each."""

    batch_size: Count = 1
    tokens: Count = 128

    @property
    def head(self) -> Head:
        """Drives encoders."""
        return "encoder"

    @property
    def items(self) -> int:
        """See ``Workload``: texts."""
        return self.batch_size

    @property
    def tokens_read(self) -> int:
        """See ``Workload``."""
        return self.batch_size * self.tokens

    @property
    def spans(self) -> tuple[Span, ...]:
        """See ``Bounded``."""
        return (Span(("tokens",), (self.tokens,), "encoder"),)

    def representative_runs(self) -> dict[Phase, Encoding]:
        """See ``Workload``."""
        return {"encode": self}

    def run(self, model: Runner, watch: PhaseObserver) -> None:
        """See ``Workload``."""
        import torch

        from objectives.workloads.prompts import prompts

        with torch.inference_mode():
            ids = prompts(model, self.batch_size, self.tokens)
            watch.start(laps=1)
            model.encode(ids)
            watch.end_phase("encode")
