"""Every cell once, in a shuffled order that depends on the seed only.

Optuna's grid and brute-force samplers stop the study themselves, which ask/tell forbids. Here the order is
fixed by the seed, and the next cell is the first in it that no trial of the study holds, so a resumed study
goes on where it stopped.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

GRID = "grid"
"""Study user attribute: for each parameter the list of what may be sampled."""


class ExhaustiveSampler(BaseSampler):
    """Enumerates the grid stored with the study; after the last cell it starts again."""

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed or 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole grid: all parameters of a cell are chosen together."""
        return {name: _distribution(values) for name, values in study.user_attrs[GRID].items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next cell in shuffled order."""
        grid: Mapping[str, Sequence[Any]] = study.user_attrs[GRID]
        cells = list(itertools.product(*grid.values()))
        random.Random(self._seed).shuffle(cells)
        taken = {tuple(other.params.get(name) for name in grid) for other in study.get_trials(deepcopy=False)}
        cell = next((cell for cell in cells if cell not in taken), cells[trial.number % len(cells)])
        return dict(zip(grid, cell))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed: the grid holds every parameter."""
        raise KeyError(f"{param_name} is not in the study's grid")


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    if all(type(value) is int for value in values) and list(values) == list(range(len(values))):
        return IntDistribution(0, len(values) - 1)
    return CategoricalDistribution(values)
