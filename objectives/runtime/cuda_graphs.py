"""torch in eager mode, its passes recorded as CUDA graphs: a GPU then waits for no launch. No compilation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.candidate import Runtime
from objectives.runtime.engine_support import embeds
from objectives.runtime.in_torch.base import InTorch
from objectives.settings import FORBID

if TYPE_CHECKING:
    from objectives.protocols.candidate import Candidate, TorchBuildContext
    from objectives.protocols.running import Device, Runner
    from objectives.types import Head


@settings(frozen=True, kw_only=True, config=FORBID)
class CudaGraphs(InTorch, Runtime):
    """Replays recorded passes of the packed model (``objectives.runtime.in_torch.captured``)."""

    @property
    @override
    def name(self) -> str:
        return "cuda_graphs"

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        if not device.records_graphs:
            return "records what a GPU runs: device=cuda"
        if head == "seq2seq":
            return "takes decoders and encoders, not encoder-decoders"
        return embeds(candidate, device)

    @override
    def prepare(self, context: TorchBuildContext) -> Runner:
        """Return a runner that records its passes at the first run of every shape. Raises Unsupported."""
        from objectives.runtime.in_torch.captured import Captured

        return Captured(context.model()).check()
