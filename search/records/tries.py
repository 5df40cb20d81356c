"""Counts tries. A trial that was lost is tried once more, and the lost try is not counted in ``n_trials``.

A trial is lost where its process died, ran out of time, or the study was stopped in its middle: that may have been
chance, and nothing was learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from objectives.types import Reason
from search.records.trial import TrialRecord, Value

LOST = frozenset({Reason.CRASHED, Reason.TIMEOUT, Reason.INTERRUPTED})
"""Reasons that say nothing about a cell the first time."""

Key = tuple[tuple[str, Value], ...]


def key_of(cell: Mapping[str, Value]) -> Key:
    """Return the settings of a cell in the order of their names."""
    return tuple(sorted(cell.items()))


class Tries:
    """The tries of one study. ``spent``: how many trials count towards its limit."""

    def __init__(self, records: Iterable[TrialRecord] = ()) -> None:
        self.spent = 0
        self._lost: dict[Key, int] = {}
        self._owed: dict[Key, Mapping[str, Value]] = {}
        for record in records:
            self.add(record)

    def add(self, record: TrialRecord) -> None:
        """Take one more trial into account."""
        key = key_of(record.params)
        if record.reason not in LOST:
            self.spent += 1
            self._owed.pop(key, None)
            return
        lost = self._lost[key] = self._lost.get(key, 0) + 1
        self.spent += lost > 1 and record.reason != Reason.INTERRUPTED
        if lost == 1 and record.params:
            self._owed[key] = record.params
        else:
            self._owed.pop(key, None)

    @property
    def owed(self) -> tuple[Mapping[str, Value], ...]:
        """Return the cells that were lost once and not tried since."""
        return tuple(self._owed.values())
