"""The Gaussian process against its textbook form, and its predictions against what they should hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import check_grad

from search.frontier.surrogate import Prior, Surrogate
from search.space.product_grid import ProductGrid

PRIOR = Prior(amplitude=0.5, nugget=0.02)
RNG = np.random.default_rng(0)


def smooth(points: np.ndarray) -> np.ndarray:
    return np.sin(3 * points[:, 0]) + points[:, 1] ** 2 + 0.5 * points[:, 0] * points[:, 1]


@pytest.mark.parametrize("noise", [np.zeros(9), np.linspace(0.0, 0.2, 9)])
def test_the_posterior_is_that_of_the_textbook(noise: np.ndarray) -> None:
    """Rasmussen and Williams, equations 2.25 and 2.26, with the covariance written out for one pair at a time."""
    points, asked = RNG.random((9, 2)), RNG.random((4, 2))
    values = smooth(points)
    fitted = Surrogate(points, values, PRIOR, noise=noise)
    lengths, alone, together, nugget = (
        np.exp(fitted.scales[:2]), math.exp(fitted.scales[2]), math.exp(fitted.scales[3]), math.exp(fitted.scales[4]),
    )  # fmt: skip

    def k(one: np.ndarray, other: np.ndarray) -> float:
        squares = (one - other) ** 2 / lengths**2
        return (
            sum(alone**2 * math.exp(-square / 2) for square in squares)
            + together**2 * math.exp(-sum(squares) / 2) + 4.0 * float(one @ other) + 25.0
        )  # fmt: skip

    across = np.array([[k(one, other) for other in asked] for one in points])
    within = np.array([[k(one, other) for other in points] for one in points]) + np.diag(nugget**2 + 1e-8 + noise**2)
    weights = np.linalg.solve(within, values - values.mean())
    mean = values.mean() + across.T @ weights
    variance = np.array([k(x, x) for x in asked]) - np.diag(across.T @ np.linalg.solve(within, across)) + nugget**2
    prediction = fitted.predict(ProductGrid((asked,)))
    assert prediction.mean == pytest.approx(mean, abs=1e-5)
    assert prediction.deviation == pytest.approx(fitted.inflation * np.sqrt(variance), abs=1e-4)


def test_the_gradient_of_the_fit_is_right() -> None:
    points = RNG.random((8, 3))
    fitted = Surrogate(points, smooth(points), PRIOR)
    centre, spread = np.zeros(6), np.ones(6)
    at = np.array([-0.5, 0.1, 0.3, -0.7, -0.6, -3.0])
    error = check_grad(
        lambda x: fitted._loss(x, centre, spread)[0], lambda x: fitted._loss(x, centre, spread)[1], at, epsilon=1e-6
    )
    assert error < 1e-3


def test_a_smooth_surface_is_learnt_and_the_interval_says_how_well() -> None:
    points, asked = RNG.random((30, 2)), RNG.random((200, 2))
    prediction = Surrogate(points, smooth(points), PRIOR).predict(ProductGrid((asked,)))
    away = np.abs(prediction.mean - smooth(asked))
    assert np.median(away) < 0.02
    assert (away <= 3 * prediction.deviation).mean() > 0.98


def test_quirks_of_cells_widen_the_guess_of_all_others() -> None:
    points, asked = RNG.random((40, 2)), RNG.random((50, 2))
    quirks = 0.1 * RNG.standard_normal(40)
    calm = Surrogate(points, smooth(points), PRIOR).predict(ProductGrid((asked,)))
    rough = Surrogate(points, smooth(points) + quirks, PRIOR).predict(ProductGrid((asked,)))
    assert np.median(rough.deviation) > 0.08
    assert np.median(rough.deviation) > 3 * np.median(calm.deviation)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_measurements_say_little(count: int) -> None:
    points = RNG.random((count, 2))
    prediction = Surrogate(points, smooth(points), PRIOR).predict(ProductGrid((np.array([[0.0, 0.0], [1.0, 1.0]]),)))
    assert np.isfinite(prediction.mean).all()
    assert (prediction.deviation > 0.2).all()


def test_repeats_of_one_point_and_constant_values_do_no_harm() -> None:
    points = np.repeat(RNG.random((2, 2)), 3, axis=0)
    prediction = Surrogate(points, np.ones(6), PRIOR).predict(ProductGrid((RNG.random((5, 2)),)))
    assert prediction.mean == pytest.approx(np.ones(5), abs=0.2)


def test_a_lattice_of_axes_is_predicted_like_its_points_one_by_one() -> None:
    axes = (RNG.random((3, 1)), RNG.random((4, 2)), RNG.random((2, 1)))
    lattice = ProductGrid(axes)
    assert len(lattice) == len(lattice.points) == 24
    assert lattice.points[5].tolist() == [*axes[0][0], *axes[1][2], *axes[2][1]]
    points = RNG.random((12, 4))
    fitted = Surrogate(points, smooth(points), PRIOR)
    fast, plain = fitted.predict(lattice), fitted.predict(ProductGrid((lattice.points,)))
    assert fast.mean == pytest.approx(plain.mean, rel=1e-9)
    assert fast.deviation == pytest.approx(plain.deviation, rel=1e-6)


def test_kept_scales_are_not_fitted_again() -> None:
    points = RNG.random((20, 2))
    scales = Surrogate(points[:10], smooth(points[:10]), PRIOR).scales
    again = Surrogate(points, smooth(points), PRIOR, scales, fit=False)
    assert again.scales is scales
    assert again.predict(ProductGrid((points,))).mean == pytest.approx(smooth(points), abs=0.05)
