"""Proposes every cell once, in a shuffled order that depends on the seed only.

Optuna's grid and brute-force samplers stop the study themselves, which ask/tell forbids. Here the order is fixed by
the seed, and the next cell is the first in this order that no trial of the study has, so a resumed study goes on where
it stopped.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from search.samplers.distinct import grid_distributions, grid_of, left_out


class ExhaustiveSampler(BaseSampler):
    """Enumerates the grid of its one study; after the last cell it starts again."""

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed or 0
        self._cells: list[tuple[Any, ...]] = []
        self._taken: set[tuple[Any, ...]] = set()
        self._read, self._next = 0, 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole grid: all parameters of a cell are chosen together."""
        return grid_distributions(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next cell in shuffled order."""
        self._cells = self._cells or self._order(study)
        trials = study.get_trials(deepcopy=False)
        self._taken |= {tuple(other.params.get(name) for name in search_space) for other in trials[self._read :]}
        self._read = trial.number  # it has no cell yet, and those before it keep theirs
        while self._next < len(self._cells) and self._cells[self._next] in self._taken:
            self._next += 1
        place = self._next if self._next < len(self._cells) else trial.number % len(self._cells)
        return dict(zip(search_space, self._cells[place]))

    def _order(self, study: Study) -> list[tuple[Any, ...]]:
        outside = left_out(study)
        cells = [cell for cell in itertools.product(*grid_of(study).values()) if cell not in outside]
        random.Random(self._seed).shuffle(cells)
        return cells

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raise KeyError: the grid has every parameter, so no other is asked for."""
        raise KeyError(f"{param_name} is not in the study's grid")
