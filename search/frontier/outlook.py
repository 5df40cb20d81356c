"""What is known of a grid of cells, and what that says of the rest: what may still matter, and what is worth trying.

A cell can still matter if its recipe may keep the floor and its objectives may reach beyond the front. The sum of both
chances over all cells bounds the chance that the front is not complete; below what the user allows, the search is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from search.frontier.gain import chance_of_gain, expected_gain
from search.frontier.grid import Floats, Grid, Indices, is_of_recipe
from search.frontier.surrogate import Guess, Prior, Surrogate
from search.pareto import non_dominated

Flags = NDArray[np.bool_]

WORSE: Mapping[str, int] = {
    "pruning.ratio": 1, "pruning.attention_ratio": 1, "pruning.ffn_ratio": 1,
    "quantization.bits": -1, "quantization.embeddings": -1, "recovery.seconds": -1,
}  # fmt: skip
"""Along which axes accuracy is expected to fall: with the value (1) or against it (-1)."""

_OBJECTIVE = Prior(amplitude=0.5, quirk=0.02)
_GAP = Prior(amplitude=0.1, quirk=0.005)
_CANDIDATES = 1024
"""The likeliest cells, whose expected gains are compared."""
_TRACE = 1e-3
"""What a chance of gain is worth beside the expected gain: where that is lost in rounding, the chance decides."""


@dataclass(frozen=True)
class Known:
    """What was found so far.

    ``values`` [cells, objectives]: minimised, in log units, NaN where not measured. ``gaps`` [recipes]: accuracy minus
    the floor, NaN where not scored; ``gap_errors``: their standard errors, 0 for all examples. ``verdicts`` [recipes]:
    1 feasible, -1 not, 0 open. ``closed`` [cells]: failed, or known to fail. ``ready`` [recipes]: the compressed model
    is at hand. ``seconds``: of the stages ``compress``, ``score`` and ``time``, each [recipes] or [cells] or a number.
    ``memory`` [cells]: log of the peak, NaN where not measured; ``starved`` [cells]: ran out of memory.
    """

    grid: Grid
    values: Floats
    gaps: Floats
    gap_errors: Floats
    verdicts: NDArray[np.int_]
    closed: Flags
    ready: Flags
    seconds: Mapping[str, float | Floats] = field(default_factory=dict)
    memory: Floats | None = None
    starved: Flags | None = None

    @property
    def measured(self) -> Flags:
        """[cells]: whether all objectives are known."""
        return np.asarray(np.isfinite(self.values).all(axis=1), dtype=np.bool_)

    @property
    def front(self) -> Indices:
        """Cells that are feasible, measured and not dominated."""
        own = np.flatnonzero(self.measured & (self.verdicts[self.grid.recipes] == 1))
        return own[non_dominated(self.values[own])] if len(own) else own


@dataclass(frozen=True)
class Outlook:
    """Over all cells: ``feasible``: the chance that it keeps the floor; ``gain``: at most the chance that it would
    reach beyond the front by more than the resolution; ``worth``: expected gain per second; all 0 where nothing is
    left to find. ``mean``, ``deviation`` [cells, objectives]: what is guessed of its objectives.
    """

    feasible: Floats
    gain: Floats
    worth: Floats
    mean: Floats
    deviation: Floats

    @property
    def open(self) -> float:
        """At most the chance that some cell would improve the front by more than the resolution."""
        return float(min(1.0, (self.feasible * self.gain).sum()))


class Forecaster:
    """Keeps the scales of its surrogates between looks. ``tolerance``: by how much accuracy may rise where it should
    fall (standard deviation); ``resolution``: relative, what two cells must differ by to be told apart.
    """

    def __init__(self, tolerance: float = 0.005, resolution: float = 0.01) -> None:
        self.tolerance, self.resolution = tolerance, resolution
        self._scales: dict[str, Floats] = {}

    def look(self, known: Known) -> Outlook:
        """What the rest may be worth."""
        grid, recipes = known.grid, known.grid.recipes
        guesses = [self._guess(known, place) for place in range(known.values.shape[1])]
        mean = np.stack([guess.mean for guess in guesses], axis=1)
        deviation = np.stack([guess.deviation for guess in guesses], axis=1)
        feasible = self.feasible(known)[recipes] * self._fits(known)
        left = ~known.measured & ~known.closed & (known.verdicts[recipes] != -1)
        front = known.values[known.front]
        gain, worth = np.zeros(len(grid)), np.zeros(len(grid))
        gain[left] = chance_of_gain(mean[left], deviation[left], front, self.resolution)
        likely = np.argsort(-feasible * gain, kind="stable")[:_CANDIDATES]
        likely = likely[feasible[likely] * gain[likely] > 1e-6]
        expected = expected_gain(mean[likely], deviation[likely], front) if len(front) else np.ones(len(likely))
        worth[likely] = feasible[likely] * (expected + _TRACE * gain[likely]) / self.cost(known)[likely]
        return Outlook(np.where(left, feasible, 0.0), gain, worth, mean, deviation)

    def feasible(self, known: Known) -> Floats:
        """[recipes]: the chance that each keeps the floor."""
        chance = (known.verdicts > 0).astype(np.float64)
        unknown = known.verdicts == 0
        scored = np.isfinite(known.gaps)
        if unknown.any():
            guess = self._fitted("gap", known.grid.recipe_coordinates, known.gaps, scored, _GAP)
            mean, deviation = guess.mean.copy(), guess.deviation.copy()
            mean[scored] = known.gaps[scored]
            deviation[scored] = np.maximum(known.gap_errors[scored], 1e-9)
            chance[unknown] = ndtr(mean / deviation)[unknown]
            ceiling = self._ceiling(known)
            chance[unknown] = np.minimum(chance, ceiling)[unknown]
        return chance

    def _fits(self, known: Known) -> Floats:
        """[cells]: the chance of fitting into memory, whose size shows only where something did not fit.

        It lies between the largest peak that fitted and the smallest that did not, anywhere for all we know.
        """
        found = np.ones(len(known.grid))
        if known.memory is None or known.starved is None or not known.starved.any():
            return found
        own = np.isfinite(known.memory)
        peaks = self._fitted("memory", known.grid.coordinates, known.memory, own, _OBJECTIVE).mean
        peaks = np.where(own, known.memory, peaks)
        least = float(peaks[known.starved].min())
        most = min(float(known.memory[own].max()), least) if own.any() else least
        return np.clip((least - peaks) / max(least - most, 0.01), 0.01, 1.0)

    def _ceiling(self, known: Known) -> Floats:
        """[recipes]: the chance that each is feasible although a milder one is not."""
        found = np.ones(len(known.gaps))
        harder = milder_than(known.grid)
        for recipe in np.flatnonzero(known.verdicts == -1).tolist():
            short = -(known.gaps[recipe] + 2 * known.gap_errors[recipe])
            found[harder[recipe]] = np.minimum(found[harder[recipe]], ndtr(-max(short, 0.0) / self.tolerance))
        return found

    def _guess(self, known: Known, place: int) -> Guess:
        own = np.isfinite(known.values[:, place])
        return self._fitted(str(place), known.grid.coordinates, known.values[:, place], own, _OBJECTIVE)

    def _fitted(self, name: str, points: Floats, values: Floats, own: Flags, prior: Prior) -> Guess:
        if not own.any():
            return Guess(np.zeros(len(points)), np.full(len(points), 1e3))
        surrogate = Surrogate(points[own], values[own], prior, self._scales.get(name))
        self._scales[name] = surrogate.scales
        return surrogate.guess(points)

    @staticmethod
    def cost(known: Known) -> Floats:
        """[cells]: seconds that trying each would take."""
        recipes = known.grid.recipes
        by_recipe = np.where(known.ready, 0.0, known.seconds.get("compress", 1.0))
        by_recipe = by_recipe + np.where(known.verdicts == 0, known.seconds.get("score", 1.0), 0.0)
        found: Floats = by_recipe[recipes] + known.seconds.get("time", 1.0)
        return found


@lru_cache(maxsize=8)
def milder_than(grid: Grid) -> Sequence[Indices]:
    """For every recipe those that are no milder in anything (see :data:`WORSE`) and equal in all else."""
    own = [place for place, axis in enumerate(grid.axes) if is_of_recipe(axis)]
    _, first = np.unique(grid.recipes, return_index=True)
    places = grid.places[first][:, own]
    signs = np.array([WORSE.get(grid.axes[place].path, 0) for place in own])
    found = []
    for row in places:
        away = (places - row) * signs
        harder = (away >= 0).all(axis=1) & ((places == row) | (signs != 0)).all(axis=1) & (places != row).any(axis=1)
        found.append(np.flatnonzero(harder))
    return found
