"""The search of our own, as a sampler of Optuna: the cell that is worth most per second, until none is worth anything.

It needs to see what Optuna's trials do not show (stages, examples, what failed and why), so the study informs it before
it asks (:class:`Informed`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from typing_extensions import override

from search.errors import ConfigError
from search.frontier.forecast import Forecast, Forecaster
from search.frontier.known import Observations, WarmStart
from search.samplers.distinct import grid_distributions
from search.space.grid import MOST_CELLS, Grid


@runtime_checkable
class Informed(Protocol):
    """A sampler that is told what the study knows, and may say that it is over."""

    def inform(self, grid: Grid, look: Callable[[], Observations], warm_start: WarmStart | None = None) -> None:
        """Before the first question. ``look``: what is known now; ``warm_start``: what is known beforehand."""

    def finished(self, anew: bool = False) -> bool:
        """Whether nothing is left that is worth a trial; ``anew``: whatever was kept from earlier looks aside."""

    def timed_first(self) -> bool:
        """Whether the cell asked for last is better timed before it is scored."""


class FrontierSampler(BaseSampler, Informed):
    """``error``: the chance that the front lacks a cell, which is accepted; ``resolution``: relative, by how much a
    cell has to improve the front to be missed; ``tolerance``: how much accuracy may rise, where it should fall.
    """

    def __init__(
        self, error: float = 0.05, resolution: float = 0.02, tolerance: float = 0.005, seed: int | None = None
    ) -> None:
        for name, value in (("error", error), ("resolution", resolution), ("tolerance", tolerance)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {value}")
        self.error, self.resolution, self.tolerance, self.seed = error, resolution, tolerance, seed
        self._forecaster = Forecaster(tolerance, resolution)
        self._grid: Grid | None = None
        self._asked: int | None = None
        self._look: Callable[[], Observations] | None = None

    @override
    def inform(self, grid: Grid, look: Callable[[], Observations], warm_start: WarmStart | None = None) -> None:
        if len(grid) > MOST_CELLS:
            raise ConfigError(
                f"sampler: frontier enumerates at most {MOST_CELLS:,} cells, the space has {len(grid):,}; "
                "choose another, as sampler=tpe"
            )
        self._grid, self._look = grid, look
        self._forecaster = Forecaster(self.tolerance, self.resolution, warm_start)

    def forecast(self, anew: bool = False) -> Forecast:
        """Look at what is known now and return what the rest may be worth; ``anew``: with surrogates fitted again."""
        assert self._look is not None
        if anew:
            self._forecaster = Forecaster(self.tolerance, self.resolution, self._forecaster.warm_start)
        self._next, self._asked = self._forecaster.look(self._look()), None
        return self._next

    @property
    def is_informed(self) -> bool:
        """Return whether a study told it what it knows."""
        return self._look is not None

    @property
    def latest(self) -> Forecast:
        """Return the outlook of the last look."""
        return self._next

    @override
    def finished(self, anew: bool = False) -> bool:
        found = self.forecast(anew)
        return found.open <= self.error or not found.worth.max() > 0

    @override
    def timed_first(self) -> bool:
        return self._asked is not None and bool(self._next.timed_first[self._asked])

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole grid: a cell is chosen as one."""
        return grid_distributions(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The cell that is worth most."""
        assert self._grid is not None
        self._asked = int(self._next.worth.argmax())
        cell = self._grid.cell(self._asked)
        return {axis.parameter: axis.sampled(cell[axis.path]) for axis in self._grid.axes}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed: the grid holds every parameter."""
        raise KeyError(f"{param_name} is not in the study's grid")
