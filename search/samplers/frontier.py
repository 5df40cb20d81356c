"""Our own search as an Optuna sampler: it proposes the cell with the largest expected gain per second.

The search is over when no cell is worth a trial any more. The sampler needs facts that Optuna's trials do not show
(stages, examples, what failed and why), so the study informs it before it asks (:class:`Informed`).
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
    """A sampler that is told what the study knows, and can tell that the search is over."""

    def inform(self, grid: Grid, look: Callable[[], Observations], warm_start: WarmStart | None = None) -> None:
        """Take what the study knows, before the first proposal.

        ``look``: returns what is known at the time of the call; ``warm_start``: what is known before any trial.
        """

    def finished(self, anew: bool = False) -> bool:
        """Return whether no cell is left that is worth a trial; ``anew``: without what earlier looks left behind."""

    def timed_first(self) -> bool:
        """Return whether it is cheaper to time the cell that was proposed last before scoring it."""


@runtime_checkable
class Forecasting(Informed, Protocol):
    """An informed sampler that tells what it expects of the open cells: fronts are certified by its own forecast.

    ``error``: accepted chance that the front lacks a cell. ``resolution``: by how much, relative, a cell must improve
    the front to count.
    """

    error: float
    resolution: float

    def forecast(self, anew: bool = False) -> Forecast:
        """Return the forecast from what is known now; ``anew``: without what earlier looks left behind."""

    def latest(self) -> Forecast:
        """Return the forecast of the last look, which may have been that of :meth:`finished`."""


class FrontierSampler(BaseSampler, Forecasting):
    """Proposes the cell with the largest expected gain per second.

    ``error``: accepted chance that the front lacks a cell. ``resolution``: by how much, relative, a cell must improve
    the front to count. ``tolerance``: how much accuracy may rise where harder compression should lower it.
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

    @override
    def forecast(self, anew: bool = False) -> Forecast:
        assert self._look is not None
        if anew:
            self._forecaster = Forecaster(self.tolerance, self.resolution, self._forecaster.warm_start)
        self._next, self._asked = self._forecaster.look(self._look()), None
        return self._next

    @override
    def latest(self) -> Forecast:
        return self._next

    @override
    def finished(self, anew: bool = False) -> bool:
        found = self.forecast(anew)
        return found.open <= self.error or not found.worth.max() > 0

    @override
    def timed_first(self) -> bool:
        return self._asked is not None and bool(self._next.timed_first[self._asked])

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole grid: all parameters of a cell are chosen together."""
        return grid_distributions(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the cell that is worth most by the last forecast."""
        assert self._grid is not None
        self._asked = int(self._next.worth.argmax())
        cell = self._grid.cell(self._asked)
        return {axis.parameter: axis.sampled(cell[axis.path]) for axis in self._grid.axes}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raise KeyError: the grid has every parameter, so no other is asked for."""
        raise KeyError(f"{param_name} is not in the study's grid")
