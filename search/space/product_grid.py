"""A product of axes, and tables over it that are never computed cell by cell.

What adds up or multiplies over axes needs a row of each axis's values only; the cells are sums or products of those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ProductGrid:
    """``axes``: the coordinates [values, dimensions] of each one's values. Cells: every choice, last axis fastest.

    Points without such an order are a lattice of one axis.
    """

    axes: tuple[Floats, ...]

    def __len__(self) -> int:
        """Number of cells."""
        return math.prod(len(axis) for axis in self.axes)

    @cached_property
    def points(self) -> Floats:
        """[cells, dimensions]"""
        places = np.unravel_index(np.arange(len(self)), [len(axis) for axis in self.axes]) if self.axes else ()
        columns = [axis[place] for axis, place in zip(self.axes, places)]
        return np.concatenate(columns, axis=1) if columns else np.zeros((1, 0))

    @cached_property
    def squares(self) -> Floats:
        """[cells]: squared distance of each from the origin."""
        found: Floats = self.added([(axis**2).sum(axis=1)[None] for axis in self.axes], 1)[0]
        return found

    def added(self, tables: Sequence[Floats], rows: int) -> Floats:
        """[rows, cells]: of ``tables`` [rows, values], one an axis, the sums over axes."""
        found = np.zeros((rows, 1))
        for table in tables:
            found = (found[:, :, None] + table[:, None, :]).reshape(rows, -1)
        return found

    def multiplied(self, tables: Sequence[Floats], rows: int) -> Floats:
        """[rows, cells]: the products."""
        found = np.ones((rows, 1))
        for table in tables:
            found = (found[:, :, None] * table[:, None, :]).reshape(rows, -1)
        return found
