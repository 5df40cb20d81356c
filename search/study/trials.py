"""Runs the trials of a study: each is sent to be evaluated, and when it lands it is stored, told and mirrored.

As many trials are in flight as the executor measures at a time. A cell that was measured before is answered from its
record. A failed trial is recorded like any other: see :mod:`search.study.telling`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
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
from search.study.flight import Flight, InFlight
from search.study.preflight import reason_beyond
from search.study.progress import Progress
from search.study.state import StudyState
from search.study.waiting import first_done
from search.tracking.protocol import Mirror


class Trials:
    """Runs the trials of one study.

    ``state``: what they found so far; ``flight``: those measured now; ``mirror``: set when the tracker is open.
    """

    mirror: Mirror

    def __init__(self, config: StudyConfig, study: Study, progress: Progress) -> None:
        self.config, self.study, self.progress = config, study, progress
        self._uid = study.user_attrs[store.UID]
        self._settle_orphans()
        self.state = StudyState(config, store.records_of(study), store.confirmation_of(study))
        self.flight = Flight()

    def ask_for(self, cell: Cell) -> Trial:
        """Ask Optuna for a trial of exactly ``cell``.

        A trial outside the space has no parameters, so that no sampler learns from it.
        """
        space = self.config.space
        if cell not in space:
            return self.study.ask()
        self.study.enqueue_trial(space.sampled(cell))
        trial = self.study.ask()
        space.suggest(trial)
        return trial

    def send(self, session: Session, trial: Trial, cell: Cell, is_baseline: bool = False) -> None:
        """Let ``session`` evaluate ``cell``; one that is known already is answered from its record."""
        started, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        uid = f"{self._uid}:{trial.number}"
        blank = TrialRecord(trial.number, uid, dict(cell), "failed", is_baseline=is_baseline, started=started)
        known = None if is_baseline else self.state.closed_cells.by(cell)
        answer = _completed(_REPEATED) if known else self._evaluated(session, cell, is_baseline)
        self.flight.add(InFlight(trial, cell, blank, began, answer, known))

    def land(self, session: Session) -> TrialRecord:
        """Wait for the first trial in flight that ends, store and tell its outcome, and return the record."""
        first_done([each.answer for each in self.flight], session, self.progress)
        return self._finished(next(each for each in self.flight if each.answer.done()))

    def _finished(self, landed: InFlight) -> TrialRecord:
        self.flight.remove(landed)
        samples: Mapping[str, object] = {}
        if landed.known is not None:
            record = _repeat(landed.known, landed.blank)
        else:
            outcome = landed.answer.result()
            record = self.state.telling.to_record(landed.blank, outcome)
            if isinstance(outcome, Measurement):
                samples = {**outcome.samples, "ids": outcome.ids}
        record = replace(record, seconds=time.monotonic() - landed.began)
        store.save_record(self.study, record.number, record, samples)
        self.state.add(record)
        is_settled = self.state.closed_cells.by(landed.cell) is not None
        self.state.telling.tell(self.study, landed.trial, record, is_settled)
        self.mirror.log(record)
        return record

    def _evaluated(self, session: Session, cell: Cell, is_baseline: bool) -> Future[Outcome]:
        space, config = self.config.space, self.config
        candidate = space.baseline_candidate() if is_baseline else space.candidate(cell)
        reason = None
        if not is_baseline:
            reason = reason_against(space, cell, config.model.head, config.device, unprunable(config.model))
        if reason is None and not is_baseline and config.inspection is not None:
            reason = reason_beyond(space, cell, config.inspection, config.device)
        if reason is not None:  # of a space too large to be told beforehand
            return _completed(Failure(Reason.UNSUPPORTED, reason))
        return session.evaluate(candidate, None if is_baseline else self._gate())

    def _gate(self) -> Gate | None:
        state = self.state
        members = state.members
        return state.telling.gate_for(self.study, members, None if state.scale is None else state.scale.pace)

    def abandon(self) -> None:
        """Close the trials that a signal cut short, keep those that ended, and read the state of the study again."""
        for each in self.flight:
            if each.answer.done():
                self._finished(each)
        self._settle_orphans()
        self.flight = Flight()
        self.state = StudyState(self.config, store.records_of(self.study), self.state.confirmation)

    def _settle_orphans(self) -> None:
        """Tell Optuna the trials that were cut short: by their record where it was saved, else as interrupted."""
        store.drop_waiting(self.study)
        for frozen in store.orphans(self.study):
            record = store.saved_record(frozen)
            if record is None:
                record = store.interrupted_record(self.study, frozen, self.config.space)
                store.save_record(self.study, frozen.number, record, {})
            values = [record.metrics[name] for name in self.config.objectives if name in record.metrics]
            measured = record.state == "complete" and len(values) == len(self.config.objectives)
            if measured and is_scored(record) and frozen.constraints:
                self.study.tell(frozen.number, values)
            else:
                self.study.tell(frozen.number, state=TrialState.FAIL)


_REPEATED = Failure(Reason.ERROR, "")
"""The answer to a repeat, which nobody reads: its record is that of the known trial."""


def _completed(outcome: Outcome) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future


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
