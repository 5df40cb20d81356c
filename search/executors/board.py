"""A board in shared memory on which the worker writes how far its scoring is; the driver looks when it likes.

Writing never waits, and there is no lock that a killed process could take with it.
"""

from __future__ import annotations

import multiprocessing
import time

from objectives.tasks.progress import SoFar


class Board:
    """The state of the scoring that runs now; it can be handed to a process that is being spawned."""

    def __init__(self) -> None:
        """Take shared memory for an empty board."""
        self._cells = multiprocessing.get_context("spawn").RawArray("d", 7)
        # The first cell is odd while the others are written, and another number after it.

    def clear(self) -> None:
        """Say that nothing is being scored, whatever a process left that was killed."""
        self._cells[:] = [0.0] * len(self._cells)

    def write(self, far: SoFar | None) -> None:
        """Say how far the scoring is; None where there is none."""
        self._cells[0] += 1
        if far is None:
            self._cells[1] = 0
        else:
            began = time.monotonic() - far.seconds  # the clock of the machine, the same in all processes
            self._cells[1:] = [1, far.done, far.total, began, far.may_end_early, far.domains]
        self._cells[0] += 1

    def read(self) -> SoFar | None:
        """Return how far the scoring is; None where there is none, or where it is being written at this moment."""
        version, *seen = self._cells[:]
        scoring, done, total, began, may_end_early, domains = seen
        if version % 2 or version != self._cells[0] or not scoring:
            return None
        return SoFar(done, int(total), time.monotonic() - began, bool(may_end_early), bool(domains))
