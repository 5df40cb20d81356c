"""What the runtimes that run the packed model itself share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.protocols.candidate import Quantizer


class InTorch:
    """See ``Runtime``."""

    @property
    def is_torch(self) -> bool:
        """See ``Runtime``."""
        return True

    def requirements(self) -> str | None:
        """See ``Runtime``."""
        return None

    def storage(self, quantizer: Quantizer) -> Quantizer:
        """See ``Runtime``."""
        return quantizer

    def versions(self) -> dict[str, str]:
        """See ``Runtime``; torch's own is a circumstance of every result."""
        return {}
