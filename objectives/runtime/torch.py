"""torch in eager mode, with packed linears of our own: the runtime of every baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID

if TYPE_CHECKING:
    from objectives.types import Candidate, Head, Materials, Quantizer, Runner


@settings(frozen=True, kw_only=True, config=FORBID)
class Torch:
    """``attention``: how transformers computes it, ``sdpa`` (fused) or ``eager`` (three products)."""

    attention: Literal["sdpa", "eager"] = "sdpa"

    @property
    def name(self) -> str:
        """See ``objectives.types.Runtime``."""
        return "torch"

    @property
    def is_torch(self) -> bool:
        """See ``objectives.types.Runtime``."""
        return True

    def requirements(self) -> str | None:
        """See ``objectives.types.Runtime``."""
        return None

    def supports(self, candidate: Candidate, head: Head, device: str) -> str | None:
        """See ``objectives.types.Runtime``; whatever the device stores."""
        return None

    def storage(self, quantizer: Quantizer) -> Quantizer:
        """See ``objectives.types.Runtime``."""
        return quantizer

    def versions(self) -> dict[str, str]:
        """See ``objectives.types.Runtime``; torch's own is a circumstance of every result."""
        return {}

    def prepare(self, materials: Materials) -> Runner:
        """See ``objectives.types.Runtime``."""
        loaded = materials.model()
        if self.attention == "sdpa":
            return loaded
        own = replace(loaded, module=loaded.sharing().module)
        own.module.set_attn_implementation(self.attention)
        return own
