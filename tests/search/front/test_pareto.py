from __future__ import annotations

import itertools
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.front.pareto import hypervolume, knee, non_dominated

Rows = list[list[float]]


@st.composite
def clouds(draw: st.DrawFn, widths: tuple[int, ...] = (1, 2, 3, 4), most: int = 25) -> Rows:
    """Few distinct coordinates, so that ties and duplicates abound."""
    width = draw(st.sampled_from(widths))
    coordinate = st.integers(0, 4).map(float)
    return draw(st.lists(st.lists(coordinate, min_size=width, max_size=width), min_size=1, max_size=most))


def naive_mask(rows: Rows) -> list[bool]:
    def beats(a: list[float], b: list[float]) -> bool:
        return all(x <= y for x, y in zip(a, b)) and a != b

    return [not any(beats(other, row) for other in rows) for row in rows]


def naive_volume(rows: Rows, corner: list[float]) -> float:
    """Inclusion and exclusion over the boxes between points and corner."""
    total = 0.0
    for size in range(1, len(rows) + 1):
        for chosen in itertools.combinations(rows, size):
            sides = [max(0.0, c - max(column)) for c, column in zip(corner, zip(*chosen))]
            total += (-1) ** (size + 1) * math.prod(sides)
    return total


@given(clouds())
def test_the_mask_agrees_with_the_definition(rows: Rows) -> None:
    assert non_dominated(rows).tolist() == naive_mask(rows)


@given(clouds(), st.randoms(use_true_random=False))
def test_the_order_of_points_does_not_matter(rows: Rows, random: Random) -> None:
    order = random.sample(range(len(rows)), len(rows))
    mask = non_dominated(rows).tolist()
    assert non_dominated([rows[i] for i in order]).tolist() == [mask[i] for i in order]


def test_equal_points_are_all_kept() -> None:
    rows: Rows = [[1, 2], [1, 2], [2, 2], [-0.0, 3], [0.0, 3]]
    assert non_dominated(rows).tolist() == [True, True, False, True, True]


def test_no_points_give_an_empty_mask() -> None:
    assert non_dominated(np.empty((0, 2))).shape == (0,)
    nothing: list[float] = []
    assert non_dominated(nothing).shape == (0,)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="row 1"):
        non_dominated([[1.0, 2.0], [bad, 0.0]])
    with pytest.raises(ValueError, match="finite"):
        hypervolume([[1.0, 2.0]], [bad, 3.0])


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        non_dominated([1.0, 2.0])
    with pytest.raises(ValueError, match="shape"):
        hypervolume([[1.0, 2.0]], [3.0, 3.0, 3.0])


@settings(max_examples=60)
@given(clouds(most=7))
def test_hypervolume_agrees_with_inclusion_and_exclusion(rows: Rows) -> None:
    corner = [3.5] * len(rows[0])
    assert hypervolume(rows, corner) == pytest.approx(naive_volume(rows, corner))


@given(clouds(widths=(2, 3)))
def test_a_constant_coordinate_adds_a_factor_only(rows: Rows) -> None:
    corner = [5.0] * len(rows[0])
    for place in range(len(corner) + 1):
        lifted = [[*row[:place], 1.0, *row[place:]] for row in rows]
        assert hypervolume(lifted, [*corner[:place], 4.0, *corner[place:]]) == pytest.approx(
            3.0 * hypervolume(rows, corner)
        )


@given(clouds(most=12))
def test_dominated_points_add_no_volume(rows: Rows) -> None:
    corner = [4.5] * len(rows[0])
    front = np.array(rows)[non_dominated(rows)]
    assert hypervolume(rows, corner) == pytest.approx(hypervolume(front, corner))


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume([[2.0, 0.0], [0.0, 2.0]], [2.0, 2.0]) == 0.0
    assert hypervolume([], [1.0, 1.0]) == 0.0
    assert hypervolume([[0.5, 0.5], [0.0, 9.0]], [1.0, 1.0]) == pytest.approx(0.25)


def test_the_knee_is_the_bend() -> None:
    assert knee([[1.0, 1000.0], [10.0, 10.0], [1000.0, 1.0]]) == 1
    assert knee([[0.0, 1.0], [0.2, 0.2], [0.3, 0.15], [1.0, 0.0]]) == 1


def test_a_front_without_a_bend_has_no_knee() -> None:
    assert knee([[0.0, 1.0], [1.0, 0.0]]) is None
    assert knee([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]) is None
    assert knee([[0.0, 1.0], [0.8, 0.8], [1.0, 0.0]]) is None
    assert knee([]) is None
