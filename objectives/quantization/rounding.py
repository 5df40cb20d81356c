"""The protocol of roundings: a rounding turns one weight into codes of fewer than 8 bits."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Moment
    from objectives.packing.codes import Codes


@runtime_checkable
class Rounding(Protocol):
    """Turns one weight into codes of fewer than 8 bits. Immutable and hashable."""

    @property
    @abstractmethod
    def group_size(self) -> int:
        """Return the number of input channels per scale; widths that it does not divide get smaller groups."""

    @abstractmethod
    def round(self, weight: Tensor, moment: Moment, bits: int, group_size: int) -> Codes:
        """Round ``weight`` [out, in] to ``bits``, in groups of ``group_size``; ``moment``: that of its inputs."""
