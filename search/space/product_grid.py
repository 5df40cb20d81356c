"""A product of axes, and tables over it that are never computed cell by cell.

A quantity that adds up or multiplies over axes needs only a row per axis; the cells are sums or products of those rows.
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
    """A product of ``axes``, each the coordinates [values, dimensions] of its values.

    Its cells are all choices of one value per axis, last axis fastest. Points that are no product are one axis.
    """

    axes: tuple[Floats, ...]

    def __len__(self) -> int:
        """Return the number of cells."""
        return math.prod(len(axis) for axis in self.axes)

    @cached_property
    def points(self) -> Floats:
        """Return the coordinates [cells, dimensions] of all cells."""
        places = np.unravel_index(np.arange(len(self)), [len(axis) for axis in self.axes]) if self.axes else ()
        columns = [axis[place] for axis, place in zip(self.axes, places)]
        return np.concatenate(columns, axis=1) if columns else np.zeros((1, 0))

    @cached_property
    def squares(self) -> Floats:
        """Return, by cell [cells], the squared distance from the origin."""
        squares: Floats = self.added([(axis**2).sum(axis=1)[None] for axis in self.axes], 1)[0]
        return squares

    def added(self, tables: Sequence[Floats], rows: int) -> Floats:
        """Return the sums over axes [rows, cells] of ``tables`` [rows, values], one per axis."""
        sums = np.zeros((rows, 1))
        for table in tables:
            sums = (sums[:, :, None] + table[:, None, :]).reshape(rows, -1)
        return sums

    def multiplied(self, tables: Sequence[Floats], rows: int) -> Floats:
        """Return the products over axes [rows, cells] of ``tables`` [rows, values], one per axis."""
        products = np.ones((rows, 1))
        for table in tables:
            products = (products[:, :, None] * table[:, None, :]).reshape(rows, -1)
        return products
