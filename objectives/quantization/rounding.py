"""How one weight becomes codes of fewer than 8 bits."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Moment
    from objectives.packing.codes import Codes


@runtime_checkable
class Rounding(Protocol):
    """How one weight becomes codes of fewer than 8 bits. Immutable and hashable."""

    @property
    @abstractmethod
    def group_size(self) -> int:
        """Input channels per scale, where the width allows it."""

    @abstractmethod
    def round(self, weight: Tensor, moment: Moment, bits: int, group_size: int) -> Codes:
        """Codes of ``weight`` [out, in]; ``moment``: of its inputs."""
