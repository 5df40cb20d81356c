"""The search space as arrays: its cells, the recipe of each, and coordinates in which neighbours are alike.

A *recipe* is a cell without its workload: cells of one recipe share the compressed model and its accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.space.product_grid import ProductGrid
from search.space.space import Axis, Cell, Space

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

MOST_CELLS = 20_000
"""Cells of the largest grid that is enumerated; our sampler searches no larger one, and none is certified."""

LOG_FROM = 4.0
"""The ratio of largest to smallest value from which an axis of positive numbers is scaled by its logarithm."""


@dataclass(frozen=True)
class Grid:
    """All cells of ``axes``, last axis fastest; ``outside``: by number of the cell, why it is left out."""

    axes: tuple[Axis, ...]
    outside: Mapping[int, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, space: Space) -> Grid:
        """Return the grid of a space."""
        grid = cls(space.axes)
        names = [axis.path for axis in space.axes]
        numbered = ((grid.index(dict(zip(names, values))), reason) for values, reason in space.outside.items())
        return cls(space.axes, {index: reason for index, reason in numbered if index is not None})

    def __len__(self) -> int:
        """Return the number of cells."""
        return math.prod(len(axis.values) for axis in self.axes)

    @cached_property
    def places(self) -> Indices:
        """Return the places [cells, axes] of each cell's values on their axes."""
        sizes = [len(axis.values) for axis in self.axes]
        return np.stack(np.unravel_index(np.arange(len(self)), sizes), axis=1) if sizes else np.zeros((1, 0), np.intp)

    @cached_property
    def lattice(self) -> ProductGrid:
        """Return coordinates in [0, 1]: one dimension for an axis of numbers, one for every value of a category.

        Uneven strengths, such as bit widths, have both: their effect on a kernel has no order, and their effect on
        accuracy hardly has (fewer bits are worse, but not evenly so).
        """
        return ProductGrid(tuple(coordinates(axis) for axis in self.axes))

    @cached_property
    def recipe_lattice(self) -> ProductGrid:
        """Return the coordinates of the axes that make a recipe; its cells are the recipes, by number."""
        return ProductGrid(tuple(coordinates(axis) for axis in self.axes if is_of_recipe(axis)))

    @cached_property
    def recipes(self) -> Indices:
        """Return, by cell [cells], the number of its recipe."""
        recipe_axes = [place for place, axis in enumerate(self.axes) if is_of_recipe(axis)]
        sizes = [len(self.axes[place].values) for place in recipe_axes]
        return (
            np.ravel_multi_index(tuple(self.places[:, recipe_axes].T), sizes).astype(np.intp)
            if recipe_axes
            else np.zeros(len(self), np.intp)
        )

    def index(self, cell: Cell) -> int | None:
        """Return the number of ``cell``; None where it is not in the grid."""
        if set(cell) != {axis.path for axis in self.axes}:
            return None
        places = [place for axis in self.axes if (place := axis.place(cell[axis.path])) is not None]
        if len(places) < len(self.axes):
            return None
        return int(np.ravel_multi_index(places, [len(axis.values) for axis in self.axes])) if places else 0

    def cell(self, index: int) -> Cell:
        """Return the cell with number ``index``."""
        return {axis.path: axis.values[place] for axis, place in zip(self.axes, self.places[index])}


def is_of_recipe(axis: Axis) -> bool:
    """Return whether the model changes along ``axis``, and not only how it is run."""
    return not axis.path.startswith("workload.")


def recipe_count(axes: Sequence[Axis]) -> int:
    """Return how many recipes ``axes`` span, also where the cells are too many to enumerate."""
    return math.prod(len(axis.values) for axis in axes if is_of_recipe(axis))


def coordinates(axis: Axis) -> Floats:
    """Return the coordinates [values, dimensions] of an axis's values, in [0, 1]."""
    categories = np.eye(len(axis.values)) / math.sqrt(2.0)  # any two are a distance of one apart
    if not axis.is_ordinal:
        return categories
    values = np.array(axis.values, dtype=np.float64)
    if len(values) > 1 and values.min() > 0 and values.max() >= LOG_FROM * values.min():
        values = np.log2(values)
    span = values.max() - values.min()
    ordered: Floats = ((values - values.min()) / (span or 1.0))[:, None]
    uneven = axis.strength is not None and axis.strength.uneven and len(values) > 2
    return np.concatenate([ordered, categories], axis=1) if uneven else ordered
