"""What the runtimes that run the packed model itself share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.types import Quantizer


class InTorch:
    """See ``objectives.types.Runtime``."""

    @property
    def is_torch(self) -> bool:
        """See ``objectives.types.Runtime``."""
        return True

    def requirements(self) -> str | None:
        """See ``objectives.types.Runtime``."""
        return None

    def storage(self, quantizer: Quantizer) -> Quantizer:
        """See ``objectives.types.Runtime``."""
        return quantizer

    def versions(self) -> dict[str, str]:
        """See ``objectives.types.Runtime``; torch's own is a circumstance of every result."""
        return {}
