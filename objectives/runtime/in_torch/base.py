"""The shared part of the runtimes that run the packed model itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.protocols.candidate import Quantizer


class InTorch:
    """The shared part of a runtime that runs the packed model itself.

    Members also name ``Runtime`` as a base, after this class.
    """

    @property
    def is_torch(self) -> bool:
        """Return True: the packed model itself runs."""
        return True

    def requirements(self) -> str | None:
        """Return None: torch is always there."""
        return None

    def storage(self, quantizer: Quantizer) -> Quantizer:
        """Return ``quantizer`` itself: the packed model stores its codes."""
        return quantizer

    def versions(self) -> dict[str, str]:
        """Return no versions: that of torch is noted with every result."""
        return {}
