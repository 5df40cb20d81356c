"""torch in eager mode, its passes recorded as CUDA graphs: a GPU then waits for no launch. No compilation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings

from objectives.runtime.engine_support import embeds
from objectives.runtime.in_torch.base import InTorch
from objectives.settings import FORBID

if TYPE_CHECKING:
    from objectives.protocols.candidate import Candidate, TorchBuildContext
    from objectives.protocols.running import Device, Runner
    from objectives.types import Head


@settings(frozen=True, kw_only=True, config=FORBID)
class CudaGraphs(InTorch):
    """See ``objectives.runtime.in_torch.captured``."""

    @property
    def name(self) -> str:
        """See ``Runtime``."""
        return "cuda_graphs"

    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        """See ``Runtime``."""
        if not device.records_graphs:
            return "records what a GPU runs: device=cuda"
        if head == "seq2seq":
            return "takes decoders and encoders, not encoder-decoders"
        return embeds(candidate, device)

    def prepare(self, materials: TorchBuildContext) -> Runner:
        """See ``Runtime``; recorded at the first run of every shape."""
        from objectives.runtime.in_torch.captured import Captured

        return Captured(materials.model()).check()
