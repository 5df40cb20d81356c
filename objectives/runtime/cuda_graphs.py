"""torch in eager mode, its passes recorded as CUDA graphs: a GPU then waits for no launch. No compilation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings

from objectives.runtime.portable import embeds
from objectives.settings import FORBID

if TYPE_CHECKING:
    from objectives.types import Candidate, Head, Materials, Quantizer, Runner


@settings(frozen=True, kw_only=True, config=FORBID)
class CudaGraphs:
    """See ``objectives.runtime.captured``."""

    @property
    def name(self) -> str:
        """See ``objectives.types.Runtime``."""
        return "cuda_graphs"

    @property
    def is_torch(self) -> bool:
        """See ``objectives.types.Runtime``."""
        return True

    def requirements(self) -> str | None:
        """See ``objectives.types.Runtime``."""
        return None

    def supports(self, candidate: Candidate, head: Head, device: str) -> str | None:
        """See ``objectives.types.Runtime``."""
        if device != "cuda":
            return "records what a GPU runs: device=cuda"
        if head == "seq2seq":
            return "takes decoders and encoders, not encoder-decoders"
        return embeds(candidate, device)

    def storage(self, quantizer: Quantizer) -> Quantizer:
        """See ``objectives.types.Runtime``."""
        return quantizer

    def versions(self) -> dict[str, str]:
        """See ``objectives.types.Runtime``; torch's own is a circumstance of every result."""
        return {}

    def prepare(self, materials: Materials) -> Runner:
        """See ``objectives.types.Runtime``; recorded at the first run of every shape."""
        from objectives.runtime.captured import Captured

        return Captured.of(materials.model()).check()
