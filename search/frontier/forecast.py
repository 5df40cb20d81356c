"""Forecasts the cells of a grid that were not measured: which may still matter, and which are worth trying.

A cell can still matter if its recipe may keep the floor and its objectives may reach beyond the front. The sum of both
chances over all cells bounds the chance that the front is incomplete; below what the user allows, the search is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy

from search.front.pareto import non_dominated
from search.frontier.improvement import chance_of_improvement, expected_improvement
from search.frontier.known import Flags, Gaps, Observations, WarmStart
from search.frontier.limit_room import chance_of_keeping
from search.frontier.memory_room import chance_of_fitting
from search.frontier.surrogate import Prediction, Prior, Surrogate
from search.space.grid import Floats, Grid, Indices, is_of_recipe
from search.space.product_grid import ProductGrid
from search.space.space import Axis

OBJECTIVE = Prior(amplitude=0.5, nugget=0.02)
GAP = Prior(amplitude=0.1, nugget=0.005)
_SMALL = 0.01
"""Nats: predicted losses are told apart by their logarithm above, and as they are below."""
_HINTED = 0.3
"""The share of its amplitude that is left to learn of a smooth function where another study hints at it."""
_MOST = 200
"""The most cells that a surrogate learns from: half are nearest to the edge in question, half are from anywhere."""
_FITTED = 120
"""About the most cells that its scales are fitted to."""
_AGAIN = 1.05
"""Factor by which the number of known cells must grow before large fits are made again."""
_CANDIDATES, _PAIRS, _FEWEST = 1024, 65536, 64
"""The most cells whose expected gains are compared, the likeliest; then the most pairs with front members, and the
fewest cells all the same."""
_BELIEVED = 0.5
"""The chance of being feasible from which a pending cell is taken for a member of the front."""
_LIKELY = 0.3
"""The chance of being feasible from which an open cell holds back, while others are in flight, those that it is
expected to dominate: with many devices and little knowledge most cells improve on the front, and few stay on it."""
_TRACE = 1e-3
"""Weight of the chance of a gain beside the expected gain: where the latter is lost in rounding, the chance decides."""


@dataclass(frozen=True)
class Forecast:
    """A forecast for all cells of a grid.

    ``feasible`` [cells]: the chance that a cell keeps floor and limits and fits; ``improvement``: upper bound on
    the chance that it would reach beyond the front by more than the resolution; ``worth``: expected gain per second;
    all three are 0 where nothing is left to find. ``mean``, ``deviation`` [cells, objectives]: its predicted
    objectives. ``timed_first``: whether trying it costs less when it is timed before it is scored; ``cost``: seconds.
    """

    feasible: Floats
    improvement: Floats
    worth: Floats
    mean: Floats
    deviation: Floats
    timed_first: Flags
    cost: Floats

    @property
    def open(self) -> float:
        """Return an upper bound on the chance that some cell would improve the front by more than the resolution."""
        return float(min(1.0, (self.feasible * self.improvement).sum()))


@dataclass(frozen=True)
class Learned:
    """A quantity as far as it is known: ``values`` [cells] where ``own`` is set, with standard errors ``noise``.

    ``expected`` [cells]: what is expected before any measurement. ``pending`` [cells]: will be known soon.
    """

    values: Floats
    own: Flags
    prior: Prior
    expected: Floats | None = None
    noise: Floats | None = None
    pending: Flags | None = None


class Forecaster:
    """Forecasts from observations, and keeps the scales of its surrogates from one forecast to the next.

    ``tolerance``: by how much accuracy may rise where it should fall (standard deviation); ``resolution``: relative
    difference by which two cells can be told apart.
    """

    def __init__(self, tolerance: float = 0.005, resolution: float = 0.02, warm_start: WarmStart | None = None) -> None:
        self.tolerance, self.resolution, self.warm_start = tolerance, resolution, warm_start or WarmStart()
        self._scales: dict[str, tuple[Floats, int]] = {}

    def look(self, known: Observations) -> Forecast:
        """Return the forecast that ``known`` gives.

        Pending cells count as measured where they are predicted (the believer of Kriging: Ginsbourger et al. 2010,
        https://doi.org/10.1007/978-3-642-10701-6_6), and cells that have to wait for them are worth nothing now.
        """
        grid, recipes = known.grid, known.grid.recipes
        behind = _behind(known)
        guesses = [self._guess(known, place, behind) for place in range(known.values.shape[1])]
        mean = np.stack([guess.mean for guess in guesses], axis=1)
        deviation = np.stack([guess.deviation for guess in guesses], axis=1)
        mean = np.where(known.measured[:, None], known.values, mean)
        deviation = np.where(known.measured[:, None], 0.0, deviation)
        feasible = self.feasible(known)[recipes] * self.fits(known) * self.keeps_limits(known)
        left = ~known.closed & (known.verdicts[recipes] != -1) & ~(known.measured & (known.verdicts[recipes] == 1))
        left &= ~known.waiting & ~known.beyond
        front = known.values[known.front]
        if known.pending is not None:
            front = np.concatenate([front, mean[known.pending & (feasible >= _BELIEVED)]])
            front = front[non_dominated(front)] if len(front) else front
        improvement, worth = np.zeros(len(grid)), np.zeros(len(grid))
        improvement[left] = chance_of_improvement(mean[left], deviation[left], front, self.resolution)
        most = min(_CANDIDATES, max(_FEWEST, _PAIRS // max(1, len(front))))
        likely = np.argsort(-feasible * improvement, kind="stable")[:most]
        likely = likely[feasible[likely] * improvement[likely] > 1e-6]
        expected = expected_improvement(mean[likely], deviation[likely], front) if len(front) else np.ones(len(likely))
        useful = np.zeros(len(grid))
        useful[left] = chance_of_improvement(mean[left], deviation[left], front, 0.0)
        cost, timed_first = self.cost(known, feasible, useful)
        worth[likely] = feasible[likely] * (expected + _TRACE * improvement[likely]) / cost[likely]
        if known.pending is not None:
            worth[_dominated(mean, left & (feasible >= _LIKELY))] = 0.0
        return Forecast(np.where(left, feasible, 0.0), improvement, worth, mean, deviation, timed_first, cost)

    def feasible(self, known: Observations) -> Floats:
        """Return, by recipe [recipes], the chance that it keeps all floors.

        Of several floors it is the least chance of any. That is an upper bound, whatever the dependence (Fréchet), as
        the certificate needs. That a recipe keeps its bands is not forecast: it is taken for granted until it is known.
        """
        pending = None
        if known.pending is not None:
            pending = np.zeros(len(known.gaps), np.bool_)
            pending[known.grid.recipes[known.pending]] = True
        chances = [self._keeping(known.grid, name, gaps, pending) for name, gaps in known.floors.items()]
        chance: Floats = np.minimum.reduce(chances)
        chance[known.verdicts != 0] = (known.verdicts > 0)[known.verdicts != 0]
        return chance

    def _keeping(self, grid: Grid, name: str, known: Gaps, pending: Flags | None = None) -> Floats:
        """Return, by recipe [recipes], the chance that it keeps one floor."""
        chance = (known.verdicts > 0).astype(np.float64)
        unknown = known.verdicts == 0
        scored = np.isfinite(known.gaps)
        if unknown.any():
            lattice, distance = self._recipes(grid), np.abs(known.gaps)
            gaps = Learned(known.gaps, scored, GAP, self.warm_start.expected(name), known.errors, pending)
            guess = self._fitted(f"gap{name}", lattice, gaps, distance)
            mean, deviation = guess.mean.copy(), np.hypot(guess.deviation, self.tolerance)
            mean[scored] = known.gaps[scored]
            deviation[scored] = np.maximum(known.errors[scored], 1e-9)
            freedom = max(1, int(scored.sum()) - 1)  # the scales were fitted to so few
            chance[unknown] = np.where(
                scored, scipy.special.ndtr(mean / deviation), scipy.special.stdtr(freedom, mean / deviation)
            )[unknown]
            ceiling = self._ceiling(grid, known)
            chance[unknown] = np.minimum(chance, ceiling)[unknown]
        return chance

    def _recipes(self, grid: Grid) -> ProductGrid:
        """Return the coordinates of recipes: their settings, and their predicted loss where all have one."""
        losses = self.warm_start.losses
        if losses is None or not np.isfinite(losses).all() or not losses.max() > 0:
            return grid.recipe_lattice
        size = np.log1p(np.maximum(losses, 0.0) / _SMALL)
        return ProductGrid((np.column_stack([grid.recipe_lattice.points, size / size.max()]),))

    def fits(self, known: Observations) -> Floats:
        """Return, by cell [cells], the chance of fitting into memory."""
        return chance_of_fitting(known, lambda peaks: self._plain(known, "memory", peaks, -peaks))

    def keeps_limits(self, known: Observations) -> Floats:
        """Return, by cell [cells], the chance of keeping all limits."""
        return chance_of_keeping(known, lambda name, room: self._plain(known, f"limit {name}", room, np.abs(room)))

    def _plain(self, known: Observations, name: str, values: Floats, distance: Floats) -> Prediction:
        return self._fitted(name, known.grid.lattice, Learned(values, np.isfinite(values), OBJECTIVE), distance)

    def _ceiling(self, grid: Grid, known: Gaps) -> Floats:
        """Return, by recipe [recipes], the chance that it keeps a floor although a milder recipe does not; else 1."""
        ceiling = np.ones(len(known.gaps))
        harder = harder_than(grid)
        for recipe in np.flatnonzero(known.verdicts == -1).tolist():
            short = -(known.gaps[recipe] + 2 * known.errors[recipe])
            chance = scipy.special.ndtr(-max(short, 0.0) / self.tolerance)
            ceiling[harder[recipe]] = np.minimum(ceiling[harder[recipe]], chance)
        return ceiling

    def _guess(self, known: Observations, place: int, behind: Floats) -> Prediction:
        own = np.isfinite(known.values[:, place])
        warm_start = None if self.warm_start.values is None else self.warm_start.values[:, place]
        noise = None if known.errors is None else known.errors[:, place]
        learned = Learned(known.values[:, place], own, OBJECTIVE, warm_start, noise, known.pending)
        return self._fitted(str(place), known.grid.lattice, learned, behind)

    def _fitted(self, name: str, lattice: ProductGrid, learned: Learned, distance: Floats) -> Prediction:
        """Predict a quantity everywhere; ``distance`` [cells]: from the edge at which predictions matter most."""
        expected, own = learned.expected, learned.own
        if expected is not None and np.isfinite(expected).all():
            prior = replace(learned.prior, amplitude=_HINTED * learned.prior.amplitude)
            rest = replace(learned, values=learned.values - expected, prior=prior, expected=None)
            guess = self._fitted(name, lattice, rest, distance)
            return Prediction(guess.mean + expected, guess.deviation)
        if not own.any():
            return Prediction(np.zeros(len(lattice)), np.full(len(lattice), 1e3))
        chosen = _chosen(own, distance, _MOST)
        points, values = lattice.points[chosen], learned.values[chosen]
        noise = np.zeros(len(chosen)) if learned.noise is None else learned.noise[chosen]
        scales, count = self._scales.get(name, (None, 0))
        if scales is None or len(chosen) < _FITTED or own.sum() > _AGAIN * count:
            some = slice(None, None, max(1, len(chosen) // _FITTED))
            scales = Surrogate(points[some], values[some], learned.prior, scales, noise=noise[some]).scales
            self._scales[name] = scales, int(own.sum())
        guess = Surrogate(points, values, learned.prior, scales, noise=noise, fit=False).predict(lattice)
        believed = None if learned.pending is None else learned.pending & ~own
        if believed is None or not believed.any():
            return guess
        points, values = np.concatenate([points, lattice.points[believed]]), np.append(values, guess.mean[believed])
        noise = np.append(noise, np.zeros(believed.sum()))
        after = Surrogate(points, values, learned.prior, scales, noise=noise, fit=False).predict(lattice)
        return Prediction(
            np.where(believed, guess.mean, after.mean), np.where(believed, guess.deviation, after.deviation)
        )

    @staticmethod
    def cost(known: Observations, feasible: Floats, useful: Floats) -> tuple[Floats, Flags]:
        """Return, by cell [cells], the seconds that trying it would take, and whether it should be timed first.

        A cell that is scored first is timed with the chance ``feasible``; a cell that is timed first is scored with
        the chance ``useful``.
        """
        recipes = known.grid.recipes
        make = np.where(known.ready, 0.0, known.seconds.get("compress", 1.0))[recipes]
        score = np.where(known.verdicts == 0, known.seconds.get("score", 1.0), 0.0)[recipes]
        run = np.where(known.measured, 0.0, known.seconds.get("run", 1.0))
        scored_first, timed_first = score + feasible * run, run + np.minimum(useful, 1.0) * score
        return make + np.minimum(scored_first, timed_first), (timed_first < scored_first) & ~known.measured


def _dominated(values: Floats, others: Flags) -> Flags:
    """Return, by cell [cells], whether one of the ``others`` [cells] is better in every objective."""
    best = values[others][non_dominated(values[others])] if others.any() else values[:0]
    behind = np.zeros(len(values), np.bool_)
    for row in best:
        behind |= (values > row).all(axis=1)
    return behind


def _behind(known: Observations) -> Floats:
    """Return, by cell [cells], by how much the member with the largest lead is better in every objective.

    It is 0 for cells that were not measured, and for all while they are few enough for a surrogate.
    """
    lead = np.zeros(len(known.grid))
    measured, front = np.flatnonzero(known.measured), known.values[known.front]
    if len(measured) > _MOST and len(front):
        lead[measured] = np.max([(known.values[measured] - member).min(axis=1) for member in front], axis=0)
    return lead


def _chosen(own: Flags, distance: Floats, most: int) -> Indices:
    """Return at most ``most`` of the known cells: half of them the nearest, the rest spread at random."""
    cells = np.flatnonzero(own)
    if len(cells) <= most:
        return cells
    order = np.argsort(distance[cells], kind="stable")
    rest = order[most // 2 :]
    spread = np.random.default_rng(0).permutation(len(own))[cells[rest]].argsort()  # the same cells at every look
    chosen: Indices = cells[np.concatenate([order[: most // 2], rest[spread[: most - most // 2]]])]
    return chosen


@lru_cache(maxsize=8)
def harder_than(grid: Grid) -> Sequence[Indices]:
    """Return, for every recipe, the harder recipes: no milder in any strength, and equal in all else."""
    recipe_axes = [place for place, axis in enumerate(grid.axes) if is_of_recipe(axis)]
    _, first = np.unique(grid.recipes, return_index=True)
    places = grid.places[first][:, recipe_axes]
    signs = np.array([_harder(grid.axes[place]) for place in recipe_axes])
    by_recipe = []
    for row in places:
        away = (places - row) * signs
        harder = (away >= 0).all(axis=1) & ((places == row) | (signs != 0)).all(axis=1) & (places != row).any(axis=1)
        by_recipe.append(np.flatnonzero(harder))
    return by_recipe


def _harder(axis: Axis) -> int:
    """Return in which direction of its places accuracy is assumed to fall: 1, -1, or 0 where nothing is assumed."""
    return axis.strength.harder if axis.strength is not None and axis.is_ordinal else 0
