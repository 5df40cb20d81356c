"""The state of a study, kept up to date trial by trial: search, front and report read the trials in one way.

Every decision (the front, which cell is worth a trial, which candidate is dominated) uses the trials as the report will
show them: with their confirmed speed, on one scale of time, and with their recipe's score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from search.config.study_config import StudyConfig
from search.front.deciding_again import decided_again
from search.front.feasibility import is_feasible, is_scored, with_scores_of_recipe
from search.front.front import ParetoFront, cut, minimised
from search.frontier.known import Observations
from search.frontier.observations import ObservationBuilder
from search.records.trial import TrialRecord
from search.records.tries import Tries
from search.space.grid import Grid
from search.study.closed_cells import ClosedCells
from search.study.confirmation import Confirmation, confirmed, own_time_scale
from search.study.telling import Telling
from search.study.timescale import TimeScale


class StudyState:
    """The state of one study.

    ``records``: its trials as they were measured, in the order in which they ended. ``telling``: turns outcomes into
    records and tells Optuna. ``closed_cells``: the cells that need no further trial. ``tries``: which trials count, and
    which cells are owed another.
    """

    def __init__(self, config: StudyConfig, records: Sequence[TrialRecord], confirmation: Confirmation) -> None:
        self._config = config
        self.records: list[TrialRecord] = []
        self.telling, self.closed_cells, self.tries = Telling(config), ClosedCells(config.space, ()), Tries()
        self.confirm(confirmation)
        for record in records:
            self.add(record)

    def add(self, record: TrialRecord) -> None:
        """Take one more trial into account."""
        record = self._config.metric_limits.on(record)  # those of the study as it is read now
        self.records.append(record)
        self.telling.see(record)
        self.closed_cells.add(record)
        self.tries.add(record)
        if self._observations is not None and record.cached_from is None:  # a repeat says nothing new
            self._observations.add(self._scaled(record))

    def confirm(self, confirmation: Confirmation) -> None:
        """Take what was measured again into account."""
        self.confirmation = confirmation
        self.read_anew()

    def read_anew(self) -> None:
        """Forget everything that was derived from the trials, so that the scale of time is computed again."""
        self.scale: TimeScale | None = None
        self._members: list[TrialRecord] = []
        self._observations: ObservationBuilder | None = None
        self._front: ParetoFront | None = None

    def read(self) -> list[TrialRecord]:
        """Return the trials with their confirmed speed, on one scale of time, and with their recipe's score."""
        self.scale = self.scale or own_time_scale(self.records, self.confirmation)
        return with_scores_of_recipe(confirmed(self.records, self.confirmation, self.scale))

    def decide_again(self, samples: Mapping[int, Mapping[str, Any]]) -> None:
        """Decide for this floor, from the stored examples, what was decided for another; requires a measured baseline.

        ``samples``: those of the trials, by number. A study that scores all examples of one task has nothing to decide.
        """
        told = self.telling
        if told.error or told.floors:
            self.records = decided_again(self.records, samples, told.floor, told.error, told.floors)
            self.read_anew()

    def cut(self, records: Sequence[TrialRecord]) -> ParetoFront:
        """Return the front of ``records``, trials as :meth:`read` returns them. Requires a measured baseline."""
        config = self._config
        return cut(with_scores_of_recipe(records), config.objectives, self.telling.floor, config.tradeoff)

    def front(self) -> ParetoFront:
        """Return the front of all trials. Requires a measured baseline.

        The front is computed again only where the last trial may be on it.
        """
        last, front = self.records[-1], self._front
        if front is None or self._may_enter(last):
            records = self.read()
            front = self.cut(records)
            self._members = [record for record in records if record.number in front.front]
        elif self._is_feasible(last):
            front = replace(front, feasible=front.feasible | {last.number})
        self._front = front
        return front

    @property
    def members(self) -> list[TrialRecord]:
        """Return the current front's members. Requires a measured baseline."""
        if self._front is None:
            self.front()
        return self._members

    def known(self) -> Observations:
        """Return what the trials tell about the cells of the grid. Requires a measured baseline."""
        if self._observations is None:
            self._observations = ObservationBuilder(
                Grid.of(self._config.space), self._config.objectives, self.telling.floor
            )
            for record in self.read():
                if record.cached_from is None:
                    self._observations.add(record)
        return self._observations.known()

    def _scaled(self, record: TrialRecord) -> TrialRecord:
        return record if self.scale is None else self.scale(record)

    def _is_feasible(self, record: TrialRecord) -> bool:
        has_objectives = all(name in record.metrics for name in self._config.objectives)
        return has_objectives and is_scored(record) and is_feasible(record, self.telling.floor)

    def _may_enter(self, record: TrialRecord) -> bool:
        if record.cached_from is not None or not self._is_feasible(record):
            return False
        values = minimised([*self._members, self._scaled(record)], self._config.objectives)
        return not (values[:-1] <= values[-1]).all(axis=1).any()
