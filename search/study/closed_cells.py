"""Keeps which cells of a space need no further trial, and by which trial each was answered.

The cost of a look-up does not grow with the number of trials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from search.front.feasibility import is_scored
from search.frontier.observations import FINAL, REPEATED, TRIES, implied
from search.records.trial import TrialRecord
from search.records.tries import Key, key_of
from search.space.grid import MOST_CELLS, Grid
from search.space.space import Cell, Space


class ClosedCells:
    """The cells that are measured, left out of the space, or failed for good or ``TRIES`` times.

    In a space that can be enumerated a failure also closes the cells that must fail like the failed one.
    """

    def __init__(self, space: Space, records: Iterable[TrialRecord]) -> None:
        self._space, self._grid = space, Grid.of(space)
        self._by_cell: dict[Key, TrialRecord] = {}
        self._cells = {key_of(self._grid.cell(index)) for index in self._grid.outside}
        self._failed = Counter[Key]()
        for record in records:
            self.add(record)

    def __len__(self) -> int:
        """Return the number of cells of the space that need no further trial."""
        return len(self._cells)

    def add(self, record: TrialRecord) -> None:
        """Take one more trial into account."""
        key = key_of(record.params)
        self._failed[key] += record.reason in REPEATED
        if not is_final(record) and self._failed[key] < TRIES:
            return
        if record.state == "failed" or is_scored(record):
            self._by_cell.setdefault(key, record)
        if record.params not in self._space:
            return
        self._cells.add(key)
        index = self._grid.index(record.params)
        if record.state == "failed" and index is not None and len(self._space) <= MOST_CELLS:
            others = np.flatnonzero(implied(self._grid, index, record)).tolist()
            self._cells.update(key_of(self._grid.cell(other)) for other in others)

    def by(self, cell: Cell) -> TrialRecord | None:
        """Return the first trial that answers a repeat of ``cell``, or None.

        Such a trial was scored, failed for good, or failed as the last of ``TRIES`` attempts.
        """
        return self._by_cell.get(key_of(cell))


def is_final(record: TrialRecord) -> bool:
    """Return whether measuring the cell again would tell nothing new."""
    return record.state == "complete" or record.reason in FINAL
