"""What is known of a grid of cells: what the trials said, and what is known before anything is measured."""

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
class Observations:
    """What was found so far.

    ``values`` [cells, objectives]: minimised, in log units, NaN where not measured, known to ``errors`` (standard, 0
    where there is nothing but the value). ``gaps`` [recipes]: accuracy minus
    the floor, NaN where not scored; ``gap_errors``: their standard errors, 0 for all examples. ``verdicts`` [recipes]:
    1 feasible, -1 not, 0 open. ``closed`` [cells]: failed, or known to fail. ``ready`` [recipes]: the compressed model
    is at hand. ``seconds``: of the stages ``compress``, ``score`` and ``run``, each [recipes] or [cells] or a number.
    ``memory`` [cells]: log of the peak, NaN where not known; ``starved`` [cells]: ran out of memory; ``room``: log of
    the largest peak that fits, NaN where not known.
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

    @cached_property
    def measured(self) -> Flags:
        """[cells]: whether all objectives are known."""
        return np.asarray(np.isfinite(self.values).all(axis=1), dtype=np.bool_)

    @cached_property
    def front(self) -> Indices:
        """Cells that are feasible, measured and not dominated."""
        own = np.flatnonzero(self.measured & (self.verdicts[self.grid.recipes] == 1))
        return own[non_dominated(self.values[own])] if len(own) else own


@dataclass(frozen=True)
class WarmStart:
    """What is known of a study before anything is measured.

    ``values`` [cells, objectives], in log units, and ``accuracy`` [recipes]: expected, up to a constant. ``losses``
    [recipes]: the log-loss that each is predicted to cost, nats, NaN where nobody can tell.
    """

    values: Floats | None = None
    accuracy: Floats | None = None
    losses: Floats | None = None
