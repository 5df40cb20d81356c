"""Readings that a device gives of itself: the most it reads and multiplies, and counters of its energy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Peaks:
    """The highest rates of a device.

    ``bandwidth``: bytes/s that are read; ``flops``: operations/s by operand type, as torch names it. A multiplication
    and an addition are two operations. ``flops`` has ``float32`` and the types with a matrix kernel of their own.
    Raises ValueError when a rate is not a positive number or ``float32`` is missing.
    """

    bandwidth: float
    flops: Mapping[str, float]

    def __post_init__(self) -> None:
        """Refuse rates that are no rates: a cache file may hold anything."""
        rates = [self.bandwidth, *self.flops.values()]
        if "float32" not in self.flops or not all(math.isfinite(rate) and rate > 0 for rate in rates):
            raise ValueError(f"peaks must be positive numbers, one of them of float32, got {self}")

    def rate(self, operands: str) -> float:
        """Return the operations/s of the type ``operands``.

        A type without a kernel of its own is computed in floats, so it gets the slowest rate of a float type.
        """
        return self.flops.get(operands) or min(rate for name, rate in self.flops.items() if "float" in name)


class Counter(Protocol):
    """A counter of joules that counts up to ``span`` and begins anew."""

    @property
    def name(self) -> str:
        """Return what it counts, for the record."""

    @property
    def span(self) -> float:
        """Return the joules after which it begins anew; infinite where it never does."""

    @property
    def tick(self) -> float:
        """Return the joules of its smallest step."""

    @property
    def period(self) -> float:
        """Return the seconds between two of its updates."""

    def read(self) -> float | None:
        """Return the joules that it shows now; None where it does not answer."""
