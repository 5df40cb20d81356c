"""Wraps any sampler so that it proposes no cell twice.

On a grid of a hundred cells samplers propose cells that are known already: TPE 31 times in 60. A repeat costs nothing
to answer, but it spends a trial of the budget. Here a proposal that is known is drawn again a few times, and then
replaced by the nearest cell that is not known: a step of local search around what the sampler believes is best. The
sampler sees the cell that was really tried, so its model stays true.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

GRID = "grid"
"""Study user attribute: for each parameter the list of the values that may be sampled."""

Values = tuple[Any, ...]

OUTSIDE = "outside"
"""Study user attribute: cells that are left out, as lists of values in the order of the grid."""

DRAWS = 4

STARVED = {"out_of_memory", "timeout"}
"""Constraints of trials that failed for lack of memory or time: with more work the same model fails again."""

_OF_WORKLOAD = "workload."
"""The beginning of the names of parameters that say how a model is run; all others make the model."""


_GRIDS: WeakKeyDictionary[Study, Mapping[str, Sequence[Any]]] = WeakKeyDictionary()
"""The grids that were read; a study keeps the one that it began with."""


def grid_of(study: Study) -> Mapping[str, Sequence[Any]]:
    """Return the values of every parameter; Optuna would read and copy them every time."""
    if study not in _GRIDS:
        _GRIDS[study] = study.user_attrs[GRID]
    return _GRIDS[study]


def grid_distributions(study: Study) -> dict[str, BaseDistribution]:
    """Return the distributions of all parameters of the study's grid."""
    return {name: _distribution(values) for name, values in grid_of(study).items()}


def left_out(study: Study) -> set[Values]:
    """Return the cells that no sampler may propose."""
    return {tuple(values) for values in study.user_attrs.get(OUTSIDE, ())}


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    if all(type(value) is int for value in values) and list(values) == list(range(len(values))):
        return IntDistribution(0, len(values) - 1)
    return CategoricalDistribution(values)


class DistinctSampler(BaseSampler):
    """Wraps the sampler ``inner``.

    It proposes no cell of a complete or pruned trial, and no cell that must fail like one of them, while others are
    left. Nor does it propose a cell that is being measured, or another of its recipe before the first is known: two
    devices would make the same model.
    """

    def __init__(self, inner: BaseSampler, seed: int = 0) -> None:
        self.inner = inner
        self._seed = seed
        self._taken: set[Values] = set()
        self._starved: list[Values] = []
        self._seen: set[int] = set()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole grid: all parameters of a cell are chosen together."""
        return grid_distributions(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a cell that is not known, as close as possible to the one that the inner sampler proposes."""
        settled = self._settled(study, search_space)
        for _ in range(DRAWS):
            drawn = self._draw(study, trial, search_space)
            if not settled(tuple(drawn.values())):
                return drawn
        return self._nearest(study, trial, drawn, settled)

    def _draw(self, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        relative = self.inner.infer_relative_search_space(study, trial)
        found = self.inner.sample_relative(study, trial, relative)
        return {
            name: found[name] if name in found else self.inner.sample_independent(study, trial, name, distribution)
            for name, distribution in space.items()
        }

    def _settled(self, study: Study, space: dict[str, BaseDistribution]) -> Callable[[Values], bool]:
        """Return a function that tells whether a cell is known, or must fail like one that asked for less work."""
        if not self._seen:
            self._taken |= left_out(study)
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                continue
            if trial.number in self._seen:
                continue
            self._seen.add(trial.number)
            cell = tuple(trial.params.get(name) for name in space)
            self._taken.add(cell)
            if (
                trial.state == TrialState.PRUNED
                and STARVED & set(trial.constraints)
                and set(space) <= set(trial.params)
            ):
                self._starved.append(cell)
        work = [name.startswith(_OF_WORKLOAD) and isinstance(of, IntDistribution) for name, of in space.items()]
        makes_model = [not name.startswith(_OF_WORKLOAD) for name in space]

        def recipe(cell: Values) -> Values:
            return tuple(itertools.compress(cell, makes_model))

        running = {
            tuple(trial.params[name] for name in space)
            for trial in trials
            if trial.state == TrialState.RUNNING and set(space) <= set(trial.params)
        }
        in_work = {recipe(cell) for cell in running}
        in_work -= {recipe(cell) for cell in self._taken} if in_work else set()

        def settled(cell: Values) -> bool:
            if cell in self._taken or cell in running or recipe(cell) in in_work:
                return True
            return any(_asks_more(cell, failed, work) for failed in self._starved)

        return settled

    def has_free(self, study: Study) -> bool:
        """Return whether a cell is left to propose while others are measured."""
        settled = self._settled(study, grid_distributions(study))
        return any(not settled(cell) for cell in itertools.product(*grid_of(study).values()))

    def _nearest(
        self, study: Study, trial: FrozenTrial, drawn: dict[str, Any], settled: Callable[[Values], bool]
    ) -> dict[str, Any]:
        grid = grid_of(study)
        free = [cell for cell in itertools.product(*grid.values()) if not settled(cell)]
        if not free:
            return drawn
        random.Random(f"{self._seed}:{trial.number}").shuffle(free)  # ties are broken at random
        return dict(zip(grid, min(free, key=lambda cell: _distance(cell, drawn.values(), grid))))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample a parameter outside the grid by the inner sampler."""
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    @override
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.inner.before_trial(study, trial)

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.inner.after_trial(study, trial, state, values)

    @override
    def reseed_rng(self) -> None:
        self.inner.reseed_rng()


def _asks_more(cell: Values, failed: Values, work: Sequence[bool]) -> bool:
    """Return whether ``cell`` is ``failed`` with as much work or more; ``work``: which values are amounts of work."""
    return all(own >= other if more else own == other for own, other, more in zip(cell, failed, work))


def _distance(one: Iterable[Any], other: Iterable[Any], grid: Mapping[str, Sequence[Any]]) -> float:
    """Sum the distances over the axes: share of the axis for ordinals, 0 or 1 for categories."""
    total = 0.0
    for a, b, values in zip(one, other, grid.values()):
        ordinal = isinstance(_distribution(values), IntDistribution)
        total += abs(a - b) / max(1, len(values) - 1) if ordinal else float(a != b)
    return total
