"""The protocol of roundings: a rounding turns one weight into codes of fewer than 8 bits."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Moment
    from objectives.packing.codes import Codes

ZeroPlace = Literal["free", "whole", "middle"]
"""The place of a grid's zero: anywhere, on one of its points, or on the middle one, so that none is stored."""


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


@runtime_checkable
class ZeroPlacing(Rounding, Protocol):
    """A rounding that can place the zeros of its grids on their points. Those of any other stay where they are."""

    @abstractmethod
    def with_whole_zeros(self) -> Self:
        """Return the same rounding with every zero on a point of its grid, as kernels of other runtimes ask for."""


@runtime_checkable
class BlockRounding(Rounding, Protocol):
    """A rounding that can give every few inputs a scale and no zero. Any other has groups and zeros of its own."""

    @abstractmethod
    def in_blocks(self, size: Literal[32, 64, 128]) -> Self:
        """Return the same rounding with a scale for every ``size`` inputs, and all zeros in the middle."""
