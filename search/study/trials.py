"""Runs the trials of a study: each is evaluated, stored, told to Optuna and mirrored.

A cell that was measured before is answered from its record. A failed trial is recorded like any other: see
:mod:`search.study.telling`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from optuna.study import Study
from optuna.trial import Trial, TrialState

from objectives.types import Failure, Gate, Measurement, Outcome, Reason
from search.config.study_config import StudyConfig
from search.executors.protocol import Session
from search.front.feasibility import is_scored
from search.records.trial import TrialRecord
from search.space.space import Cell
from search.space.supported import reason_against, unprunable
from search.study import store
from search.study.preflight import reason_beyond
from search.study.progress import Progress
from search.study.state import StudyState
from search.study.waiting import awaited
from search.tracking.protocol import Mirror


class Trials:
    """Runs the trials of one study; ``state``: what they found so far; ``mirror``: set when the tracker is open."""

    mirror: Mirror

    def __init__(self, config: StudyConfig, study: Study, progress: Progress) -> None:
        self.config, self.study, self.progress = config, study, progress
        self._settle_orphans()
        self.state = StudyState(config, store.records_of(study), store.confirmation_of(study))
        self._running: Trial | None = None

    def ask_for(self, cell: Cell) -> Trial:
        """Ask Optuna for a trial of exactly ``cell``.

        A trial outside the space has no parameters, so that no sampler learns from it.
        """
        space = self.config.space
        if cell not in space:
            return self.study.ask()
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.enqueue_trial(space.sampled(cell))
        trial = self.study.ask()
        space.suggest(trial)
        return trial

    def run(self, session: Session, trial: Trial, cell: Cell, is_baseline: bool) -> TrialRecord:
        """Evaluate ``cell``, or answer it from its record, store and tell the outcome, and return the record."""
        self._running = trial
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        uid = f"{self.study.user_attrs[store.UID]}:{trial.number}"
        blank = TrialRecord(trial.number, uid, dict(cell), "failed", is_baseline=is_baseline, started=started)
        known = self.state.closed_cells.by(cell)
        samples: Mapping[str, object] = {}
        if known is not None:
            record = _repeat(known, blank)
        else:
            outcome = self._evaluate(session, cell, is_baseline)
            record = self.state.telling.to_record(blank, outcome)
            if isinstance(outcome, Measurement):
                samples = {**outcome.samples, "ids": outcome.ids}
        record = replace(record, seconds=time.monotonic() - clock)
        store.save_record(self.study, trial.number, record, samples)
        self.state.add(record)
        self.state.telling.tell(self.study, trial, record, self.state.closed_cells.by(cell) is not None)
        self._running = None
        self.mirror.log(record)
        return record

    def _evaluate(self, session: Session, cell: Cell, is_baseline: bool) -> Outcome:
        space, config = self.config.space, self.config
        candidate = space.baseline_candidate() if is_baseline else space.candidate(cell)
        reason = None
        if not is_baseline:
            reason = reason_against(space, cell, config.model.head, config.device, unprunable(config.model))
        if reason is None and not is_baseline and config.inspection is not None:
            reason = reason_beyond(space, cell, config.inspection, config.device)
        if reason is not None:  # of a space too large to be told beforehand
            return Failure(Reason.UNSUPPORTED, reason)
        gate = None if is_baseline else self._gate()
        return awaited(session.evaluate(candidate, gate), session, self.progress)

    def _gate(self) -> Gate | None:
        state = self.state
        members = state.members
        return state.telling.gate_for(self.study, members, None if state.scale is None else state.scale.pace)

    def abandon(self) -> None:
        """Close the trial that a signal cut short, and read the state of the study again."""
        if self._running is not None:
            self._settle_orphans()
            self.state = StudyState(self.config, store.records_of(self.study), self.state.confirmation)

    def _settle_orphans(self) -> None:
        """Tell Optuna the trials that were cut short: by their record where it was saved, else as interrupted."""
        for frozen in store.orphans(self.study):
            record = store.saved_record(frozen)
            if record is None:
                record = store.interrupted_record(self.study, frozen)
                store.save_record(self.study, frozen.number, record, {})
            values = [record.metrics[name] for name in self.config.objectives if name in record.metrics]
            measured = record.state == "complete" and len(values) == len(self.config.objectives)
            if measured and is_scored(record) and frozen.constraints:
                self.study.tell(frozen.number, values)
            else:
                self.study.tell(frozen.number, state=TrialState.FAIL)


def _repeat(known: TrialRecord, blank: TrialRecord) -> TrialRecord:
    """Return the record of a repeat: that of the ``known`` trial under the number of the ``blank`` one."""
    origin = known.number if known.cached_from is None else known.cached_from
    return replace(
        known,
        number=blank.number,
        uid=blank.uid,
        started=blank.started,
        is_baseline=False,
        cached_from=origin,
    )
