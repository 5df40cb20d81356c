"""The grid as arrays agrees with the space as cells."""

from __future__ import annotations

import numpy as np
import pytest

from objectives.settings import UNDECLARED
from search.frontier.forecast import harder_than
from search.space.grid import Grid
from search.space.space import Axis

PRUNED, WIDTH = UNDECLARED["pruning"]["ratio"], UNDECLARED["quantization"]["bits"]
AXES = (
    Axis("pruning.ratio", (0.0, 0.1, 0.2), 0.0, PRUNED),
    Axis("quantization.bits", (4, 8, 16), 16, WIDTH),
    Axis("quantization.scheme", ("w8a8", "weight_only"), "w8a8"),
    Axis("workload.batch_size", (1, 2, 4, 32), 1),
)
GRID = Grid(AXES)


def test_cells_are_found_again_by_their_values() -> None:
    assert len(GRID) == 3 * 3 * 2 * 4 == len(GRID.places)
    for index in range(len(GRID)):
        assert GRID.index(GRID.cell(index)) == index


@pytest.mark.parametrize(
    "cell",
    [
        {},
        {**GRID.cell(0), "workload.batch_size": 3},
        {**GRID.cell(0), "pruning.more": 1},
        {path: value for path, value in GRID.cell(0).items() if path != "pruning.ratio"},
    ],
)
def test_what_is_not_in_the_grid_has_no_number(cell) -> None:
    assert GRID.index(cell) is None


def test_cells_share_a_recipe_exactly_when_only_their_workload_differs() -> None:
    def model(index: int) -> tuple[object, ...]:
        return tuple(value for path, value in GRID.cell(index).items() if not path.startswith("workload."))

    pairs = np.random.default_rng(0).integers(len(GRID), size=(200, 2))
    for one, other in pairs.tolist():
        assert (GRID.recipes[one] == GRID.recipes[other]) == (model(one) == model(other))
    assert sorted(set(GRID.recipes.tolist())) == list(range(18))
    assert len(GRID.recipe_lattice.points) == 18


def test_coordinates_lie_in_the_unit_cube_and_tell_all_cells_apart() -> None:
    assert GRID.lattice.points.min() >= 0
    assert GRID.lattice.points.max() <= 1
    assert len(np.unique(GRID.lattice.points, axis=0)) == len(GRID)


def test_batch_sizes_count_in_doublings() -> None:
    column = Grid((AXES[3],)).lattice.points[:, 0]
    assert column.tolist() == pytest.approx([0, 0.2, 0.4, 1])


def test_a_space_without_axes_is_one_cell() -> None:
    grid = Grid(())
    assert (len(grid), grid.lattice.points.shape, grid.recipes.tolist()) == (1, (1, 0), [0])
    assert grid.index({}) == 0
    assert grid.cell(0) == {}


def test_harder_recipes_are_those_with_more_pruned_or_fewer_bits_and_all_else_equal() -> None:
    _, first = np.unique(GRID.recipes, return_index=True)
    cells = [GRID.cell(index) for index in first.tolist()]
    for one, harder in enumerate(harder_than(GRID)):
        wanted = {
            other
            for other, cell in enumerate(cells)
            if other != one
            and cell["pruning.ratio"] >= cells[one]["pruning.ratio"]
            and cell["quantization.bits"] <= cells[one]["quantization.bits"]
            and cell["quantization.scheme"] == cells[one]["quantization.scheme"]
        }
        assert set(harder.tolist()) == wanted
