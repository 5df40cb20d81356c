"""A Gaussian process over the grid's coordinates, which predicts what was not measured.

The covariance is that of a sum of smooth functions: one per dimension, which carries over from one bit width to the
next, and one of all dimensions together, for their interactions. The rest, which no smooth function explains, is a
cell's own quirk: it widens the prediction of every other cell, and is not noise, since a measured cell keeps its value.

Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", chapters 2 and 5
(https://gaussianprocess.org/gpml); additive covariances: Duvenaud et al. 2011, https://arxiv.org/abs/1112.4394.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from search.space.product_grid import ProductGrid

Floats = NDArray[np.float64]

_JITTER = 1e-8
_LINEAR = 4.0
"""Variance of the slope over a whole axis, before a measurement: next to no opinion."""
_LEVEL = 25.0
"""Variance of the level, likewise."""


@dataclass(frozen=True)
class Prior:
    """The belief about a quantity before it is measured, in its own units; both scales are medians of log-normals.

    ``amplitude``: standard deviation of each smooth function; ``nugget``: standard deviation of a cell's own quirk.
    """

    amplitude: float
    nugget: float


@dataclass(frozen=True)
class Prediction:
    """The predicted value of each cell: its ``mean`` and standard ``deviation`` [cells]."""

    mean: Floats
    deviation: Floats


class Surrogate:
    """The Gaussian process of one quantity.

    ``values`` [n] at ``points`` [n, dimensions] in [0, 1]; ``noise`` [n]: their standard errors, 0 unless given.
    ``start``: ``scales`` of an earlier fit, from which this fit begins; without ``fit`` they are kept as they are.
    """

    def __init__(
        self,
        points: Floats,
        values: Floats,
        prior: Prior,
        start: Floats | None = None,
        *,
        noise: Floats | None = None,
        fit: bool = True,
    ) -> None:
        self._points, self._prior = points, prior
        self._noise = np.zeros(len(points)) if noise is None else noise**2
        self._level = float(values.mean())
        self._values = values - self._level
        self._squares, self._products = _squares(points, points), points @ points.T
        self.scales = self._fit(start) if fit or start is None else start
        factor, self._weights = self._solve(self.scales)
        self._factor = factor
        self.inflation = self._inflation()

    def predict(self, cells: ProductGrid) -> Prediction:
        """Return the prediction for ``cells``, as for cells that were not measured."""
        across = self._across(cells)
        mean = self._level + across.T @ self._weights
        explained = (_half_solved(self._factor, across) ** 2).sum(axis=0)
        prior = _LEVEL + _LINEAR * cells.squares + self._smooth_variance()
        variance = np.maximum(prior - explained, 0.0) + self._quirk(self.scales) ** 2
        return Prediction(mean, self.inflation * np.sqrt(variance))

    def _across(self, cells: ProductGrid) -> Floats:
        """Return the covariances [n, cells] of the measured points with ``cells``."""
        lengths, alone = np.exp(-2 * self.scales[:-3]), np.exp(2 * self.scales[-3])
        summed, multiplied, start = [], [], 0
        for axis in cells.axes:
            mine = slice(start, start := start + axis.shape[1])
            measured = self._points[:, mine]
            halves = -0.5 * lengths[mine] * (measured[:, None] - axis) ** 2
            summed.append(alone * np.exp(halves).sum(axis=2) + _LINEAR * (measured @ axis.T))
            multiplied.append(np.exp(halves.sum(axis=2)))
        multiplied.append(np.full((len(self._points), 1), np.exp(2 * self.scales[-2])))
        covariance = cells.added([*summed, np.full((len(self._points), 1), _LEVEL)], len(self._points))
        covariance += cells.multiplied(multiplied, len(self._points))
        return covariance

    # ---- covariance. ``scales``: log lengths [dimensions], log amplitude of the sums, of the product, log quirk

    def _covariance(self, scales: Floats) -> Floats:
        lengths, alone, together = np.exp(-2 * scales[:-3]), np.exp(2 * scales[-3]), np.exp(2 * scales[-2])
        scaled = self._squares * lengths[:, None, None]
        summed: Floats = np.exp(-0.5 * scaled).sum(axis=0) * alone
        summed += together * np.exp(-0.5 * scaled.sum(axis=0)) + _LINEAR * self._products + _LEVEL
        return summed

    def _smooth_variance(self) -> float:
        alone, together = np.exp(2 * self.scales[-3]), np.exp(2 * self.scales[-2])
        return float(len(self.scales[:-3]) * alone + together)

    @staticmethod
    def _quirk(scales: Floats) -> float:
        return math.exp(scales[-1])

    def _noisy(self, scales: Floats) -> Floats:
        covariance = self._covariance(scales)
        covariance[np.diag_indices_from(covariance)] += self._quirk(scales) ** 2 + self._noise + _JITTER
        return covariance

    def _solve(self, scales: Floats) -> tuple[Floats, Floats]:
        factor: Floats = np.asarray(np.linalg.cholesky(self._noisy(scales)), dtype=np.float64)
        return factor, _solved(factor, self._values)

    # ---- fit

    def _fit(self, start: Floats | None) -> Floats:
        dimensions = self._points.shape[1]
        amplitude, nugget = math.log(self._prior.amplitude), math.log(self._prior.nugget)
        centre = np.array([math.log(0.5)] * dimensions + [amplitude, amplitude, nugget])
        spread = np.array([0.7] * dimensions + [1.0, 1.0, 1.0])
        bounds = [(math.log(0.05), math.log(5.0))] * dimensions + [(amplitude - 4, amplitude + 3)] * 2
        bounds.append((nugget - 3, nugget + 4))
        first = centre if start is None else start
        found = scipy.optimize.minimize(
            self._loss, first, args=(centre, spread), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": 60 if start is None else 15},
        )  # fmt: skip
        return np.asarray(found.x, dtype=np.float64)

    def _loss(self, scales: Floats, centre: Floats, spread: Floats) -> tuple[float, Floats]:
        """Return the negative log posterior of the scales, and its gradient."""
        factor, weights = self._solve(scales)
        away = (scales - centre) / spread
        loss = 0.5 * self._values @ weights + np.log(np.diag(factor)).sum() + 0.5 * away @ away
        inverse = _solved(factor, np.eye(len(weights)))
        sensitivity = 0.5 * (inverse - np.outer(weights, weights))
        gradient = np.array([(sensitivity * change).sum() for change in self._changes(scales)])
        return float(loss), gradient + away / spread

    def _changes(self, scales: Floats) -> list[Floats]:
        """Return the derivative of the covariance with respect to each of the scales."""
        lengths, alone, together = np.exp(-2 * scales[:-3]), np.exp(2 * scales[-3]), np.exp(2 * scales[-2])
        scaled = self._squares * lengths[:, None, None]
        each = np.exp(-0.5 * scaled)
        product = together * np.exp(-0.5 * scaled.sum(axis=0))
        by_length = [square * (alone * part + product) for square, part in zip(scaled, each)]
        return [
            *by_length,
            2 * alone * each.sum(axis=0),
            2 * product,
            2 * self._quirk(scales) ** 2 * np.eye(len(product)),
        ]

    def _inflation(self) -> float:
        """Return by what factor predictions of measured cells, each from all others, are too narrow; at least 1."""
        if len(self._values) < 4:
            return 1.0
        inverse = _solved(self._factor, np.eye(len(self._values)))
        errors = self._weights / np.sqrt(np.diag(inverse))
        return max(1.0, float(np.sqrt((errors**2).mean())))


def _squares(one: Floats, other: Floats) -> Floats:
    """Return the squared distances [dimensions, n, m] along every dimension."""
    squares: Floats = (one.T[:, :, None] - other.T[:, None, :]) ** 2
    return squares


def _half_solved(factor: Floats, right: Floats) -> Floats:
    """Return x of L x = ``right`` where ``factor`` is L; ``right`` is overwritten."""
    solution: Floats = scipy.linalg.solve_triangular(factor, right, lower=True, overwrite_b=True, check_finite=False)
    return solution


def _solved(factor: Floats, right: Floats) -> Floats:
    """Return x of L L^T x = ``right`` where ``factor`` is L."""
    solution: Floats = scipy.linalg.cho_solve((factor, True), right, check_finite=False)
    return solution
