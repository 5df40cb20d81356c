"""Encoding: one forward pass over a batch of texts, as for embeddings, classification or retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Bounded
from objectives.protocols.running import PhaseObserver, Workload
from objectives.settings import FORBID, Count
from objectives.types import Head, Phase

if TYPE_CHECKING:
    from objectives.protocols.running import Runner


@settings(frozen=True, kw_only=True, config=FORBID)
class Encoding(Workload, Bounded):
    """Encodes ``batch_size`` texts of ``tokens`` each."""

    batch_size: Count = 1
    tokens: Count = 128

    @property
    @override
    def head(self) -> Head:
        return "encoder"

    @property
    @override
    def items(self) -> int:
        """Return the texts of one run."""
        return self.batch_size

    @property
    @override
    def tokens_read(self) -> int:
        return self.batch_size * self.tokens

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        return (Span(("tokens",), (self.tokens,), "encoder"),)

    @override
    def representative_runs(self) -> dict[Phase, Encoding]:
        return {"encode": self}

    @override
    def run(self, model: Runner, watch: PhaseObserver) -> None:
        import torch

        from objectives.workloads.prompts import prompts

        with torch.inference_mode():
            ids = prompts(model, self.batch_size, self.tokens)
            watch.start(laps=1)
            model.encode(ids)
            watch.end_phase("encode")
