"""What a cell adds to a front, against the definition and against many draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.frontier.improvement import chance_of_improvement, expected_improvement, improvement

coordinates = st.sampled_from([0.0, 0.5, 1.0, 2.0])
points = st.lists(st.tuples(coordinates, coordinates, coordinates).map(list), min_size=1, max_size=5)


@given(points, points)
def test_the_gain_is_the_least_shift_after_which_some_member_is_as_good(found: list, front: list) -> None:
    for point, own in zip(found, improvement(np.array(found), np.array(front)).tolist()):

        def covered(shift: float, point: list = point) -> bool:
            return any(all(m <= x + shift + 1e-12 for m, x in zip(member, point)) for member in front)

        assert covered(own)
        assert own == 0 or not covered(own - 1e-9)


def test_without_a_front_everything_is_a_gain() -> None:
    assert improvement(np.zeros((2, 2)), np.zeros((0, 2))).tolist() == [np.inf, np.inf]
    assert chance_of_improvement(np.zeros((2, 2)), np.ones((2, 2)), np.zeros((0, 2)), 0.01).tolist() == [1, 1]


def test_chances_and_expectations_match_what_is_drawn() -> None:
    rng = np.random.default_rng(0)
    front = np.array([[0.0, 1.0], [0.4, 0.5], [1.0, 0.0]])
    mean, deviation = rng.random((40, 2)), 0.02 + 0.3 * rng.random((40, 2))
    drawn = improvement(mean[:, None] + deviation[:, None] * rng.standard_normal((40, 20_000, 2)), front)
    assert chance_of_improvement(mean, deviation, front, 0.01) == pytest.approx((drawn > 0.01).mean(axis=1), abs=0.015)
    assert expected_improvement(mean, deviation, front) == pytest.approx(drawn.mean(axis=1), abs=0.03)


def test_the_chance_over_three_objectives_is_a_bound() -> None:
    rng = np.random.default_rng(0)
    front = np.array([[0.0, 1.0, 0.5], [0.4, 0.5, 0.6], [1.0, 0.0, 0.4]])
    mean, deviation = rng.random((40, 3)), 0.02 + 0.3 * rng.random((40, 3))
    drawn = improvement(mean[:, None] + deviation[:, None] * rng.standard_normal((40, 5000, 3)), front)
    bound = chance_of_improvement(mean, deviation, front, 0.01)
    assert (bound >= (drawn > 0.01).mean(axis=1) - 0.03).all()


def test_a_cell_that_is_known_to_be_dominated_has_no_chance() -> None:
    front = np.array([[0.0, 0.0]])
    assert chance_of_improvement(np.array([[0.5, 0.5]]), np.full((1, 2), 0.01), front, 0.01)[0] < 1e-12
    assert chance_of_improvement(np.array([[-0.5, 5.0]]), np.full((1, 2), 0.01), front, 0.01)[0] == pytest.approx(1)


def test_no_cells_are_no_error() -> None:
    assert expected_improvement(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((1, 2))).shape == (0,)
