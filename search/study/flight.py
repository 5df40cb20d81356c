"""Keeps the trials in flight, which an executor measures now, and which cells have to wait for them.

A cell in flight is not asked for again. Nor is another cell of its recipe while nobody knows the recipe's accuracy: two
devices would compress and score the same model.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from optuna.trial import Trial

from objectives.types import Outcome
from search.frontier.known import Flags
from search.records.trial import TrialRecord
from search.records.tries import key_of
from search.space.grid import Grid
from search.space.space import Cell


@dataclass(frozen=True)
class InFlight:
    """A trial in flight. ``blank``: its record so far; ``began``: seconds, of the monotonic clock.

    ``known``: the trial that answers this repeat of its cell.
    """

    trial: Trial
    cell: Cell
    blank: TrialRecord
    began: float
    answer: Future[Outcome]
    known: TrialRecord | None = None


class Flight:
    """The trials in flight, in the order in which they began."""

    def __init__(self) -> None:
        self._trials: dict[int, InFlight] = {}

    def __len__(self) -> int:
        """Return how many trials are in flight."""
        return len(self._trials)

    def __iter__(self) -> Iterator[InFlight]:
        """Return an iterator over a copy, so that trials may land meanwhile."""
        return iter(tuple(self._trials.values()))

    def add(self, trial: InFlight) -> None:
        """Note that a trial began."""
        self._trials[trial.blank.number] = trial

    def remove(self, trial: InFlight) -> None:
        """Note that a trial landed."""
        del self._trials[trial.blank.number]

    def __contains__(self, cell: Cell) -> bool:
        """Return whether ``cell`` is in flight."""
        return any(key_of(each.cell) == key_of(cell) for each in self._trials.values())

    def cells(self, grid: Grid) -> Flags:
        """Return, by cell [cells], whether it is in flight."""
        flags = np.zeros(len(grid), np.bool_)
        for each in self._trials.values():
            index = grid.index(each.cell)
            if index is not None:
                flags[index] = True
        return flags
