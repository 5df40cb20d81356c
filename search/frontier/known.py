"""Holds the knowledge about a grid of cells: what trials observed, and what is known before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.front.pareto import non_dominated
from search.space.grid import Floats, Grid, Indices

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Gaps:
    """The knowledge about one floor, by recipe [recipes]; see :class:`Observations`."""

    gaps: Floats
    errors: Floats
    verdicts: NDArray[np.int_]


@dataclass(frozen=True)
class Observations:
    """The knowledge about a grid that the trials so far gave.

    ``values`` [cells, objectives]: minimised, in log units, NaN where not measured; ``errors``: their standard errors,
    0 where only the value is known. ``gaps`` [recipes]: accuracy minus the floor, NaN where not scored;
    ``gap_errors``: their standard errors, 0 where all examples were scored. ``verdicts`` [recipes]: 1 feasible, -1
    not, 0 open. ``closed`` [cells]: failed, or known to fail. ``ready`` [recipes]: the compressed model is at hand.
    ``seconds``: what the stages ``compress``, ``score`` and ``run`` take, each [recipes] or [cells] or a number.
    ``memory`` [cells]: log of the peak, NaN where not known; ``starved`` [cells]: ran out of memory; ``room``: log of
    the largest peak that fits, NaN where not known. ``tasks``: by task, what is known about each floor by itself, with
    the empty name for the only task or the mean of several; ``gaps`` are those of the floor that falls shortest.
    ``pending`` [cells]: being measured now; None where nothing is. ``margins`` [cells]: by limited metric, the room
    left below its limit, in log units, negative beyond it, NaN where not measured; ``over`` [cells]: beyond a limit.
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
    room: float = math.nan
    errors: Floats | None = None
    tasks: Mapping[str, Gaps] = field(default_factory=dict)
    pending: Flags | None = None
    margins: Mapping[str, Floats] = field(default_factory=dict)
    over: Flags | None = None

    @cached_property
    def waiting(self) -> Flags:
        """Return, by cell [cells], whether it has to wait: it is pending, or its recipe is made and scored for another.

        Two devices would compress and score the same model.
        """
        if self.pending is None:
            return np.zeros(len(self.grid), np.bool_)
        unknown = np.unique(self.grid.recipes[self.pending & (self.verdicts[self.grid.recipes] == 0)])
        return np.asarray(self.pending | np.isin(self.grid.recipes, unknown), dtype=np.bool_)

    @cached_property
    def beyond(self) -> Flags:
        """Return, by cell [cells], whether it was measured and is beyond a limit."""
        return np.zeros(len(self.grid), np.bool_) if self.over is None else self.over

    @cached_property
    def floors(self) -> Mapping[str, Gaps]:
        """Return what is known about every floor; the only one has the empty name."""
        return self.tasks or {"": Gaps(self.gaps, self.gap_errors, self.verdicts)}

    @cached_property
    def measured(self) -> Flags:
        """Return, by cell [cells], whether all objectives are known."""
        return np.asarray(np.isfinite(self.values).all(axis=1), dtype=np.bool_)

    @cached_property
    def front(self) -> Indices:
        """Return the numbers of the cells that are feasible, measured and not dominated."""
        feasible = np.flatnonzero(self.measured & ~self.beyond & (self.verdicts[self.grid.recipes] == 1))
        return feasible[non_dominated(self.values[feasible])] if len(feasible) else feasible


@dataclass(frozen=True)
class WarmStart:
    """The knowledge about a study before anything is measured.

    ``values`` [cells, objectives], in log units, and ``accuracy`` [recipes]: expected, up to a constant; ``tasks``: the
    accuracies of several tasks, by name. ``losses`` [recipes]: the log-loss that each recipe is predicted to cost, in
    nats, NaN where nobody can tell.
    """

    values: Floats | None = None
    accuracy: Floats | None = None
    losses: Floats | None = None
    tasks: Mapping[str, Floats] = field(default_factory=dict)

    def expected(self, task: str) -> Floats | None:
        """Return the expected accuracies [recipes] of a task, of the only one or of the mean by the empty name."""
        return self.tasks.get(task) if task else self.accuracy
