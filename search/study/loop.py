"""The loop of a running study: it asks for cells, has them evaluated, records the outcomes, and decides when to stop.

The baseline (unpruned, 16 bits, first batch size) is always the first trial, and alone: it sets a relative floor and is
the reference of every gain. Then the loop asks ahead: as many trials are in flight as the executor measures at a time.
A cell that was measured before is answered from its record. A failed trial is recorded like any other: see
:mod:`search.study.telling`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
from optuna.study import Study

from objectives.errors import ObjectiveError
from objectives.protocols.candidate import Candidate
from objectives.types import Measurement
from search.config.limits import GROWTH
from search.config.study_config import StudyConfig
from search.errors import BaselineFailed, ConfigError, Unmeasured
from search.executors.protocol import Session, slots_of
from search.frontier.certificate import Certificate, certificate_of, certify
from search.frontier.forecast import Forecast
from search.frontier.known import Observations
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
from search.samplers.distinct import DistinctSampler
from search.samplers.frontier import Forecasting, Informed
from search.space.grid import MOST_CELLS, Grid
from search.space.space import Cell
from search.study import opening, store
from search.study.closed_cells import is_final
from search.study.confirmation import confirm_front, is_timed, time_again
from search.study.progress import Progress
from search.study.state import StudyState
from search.study.telling import require_timed
from search.study.trials import Trials
from search.study.waiting import awaited
from search.study.warm_start import first_cells, warm_start_of
from search.tracking.outbox import Outbox
from search.tracking.protocol import StudyHeader

log = logging.getLogger(__name__)


class Loop:
    """Runs one study: its baseline, its trials and its confirmation."""

    def __init__(self, config: StudyConfig, study: Study, progress: Progress) -> None:
        self.config, self.study, self.progress = config, study, progress
        self.trials = Trials(config, study, progress)
        self._grid = Grid.of(config.space)
        self._first: tuple[Cell, ...] = ()
        self.mirror: Outbox | None = None
        self._predicting: Future[list[float]] | None = None
        self.machine: Mapping[str, str] = {}
        self._tried_again, self._confirmed_once = 0, False
        self._hypervolume, self._grown = 0.0, self.state.tries.spent
        self._final: Forecast | None = None
        self._informed = False

    @property
    def state(self) -> StudyState:
        """Return the state of the study so far."""
        return self.trials.state

    def certificate(self) -> Certificate | None:
        """Return the certificate of the front, or None for a space too large to enumerate.

        It uses the sampler's last forecast where nothing was measured since.
        """
        sampler, state, space = self.study.sampler, self.state, self.config.space
        if len(space) > MOST_CELLS:
            return None
        if not isinstance(sampler, Forecasting) or not self._informed:
            return certify(self._grid, state.read(), state.front())
        forecast = self._final or sampler.forecast(anew=True)
        return certificate_of(state.read(), state.front(), state.known(), forecast, sampler.error, sampler.resolution)

    def confirm(self, session: Session) -> None:
        """Measure contended trials again, then the front's members against each other; warn where that fails."""
        if not self.config.confirm or not is_timed(self.config.objectives):
            return

        def measure(records: Sequence[TrialRecord]) -> Sequence[Measurement]:
            measured = session.confirm([self._candidate(record) for record in records]).result()
            return [require_timed(each) for each in measured]

        now, state, self._final = replace(self.state.confirmation, failed=""), self.state, None
        try:
            self.progress.stage("timing again the trials that were timed on a busy machine")
            now = time_again(state.records[self._tried_again :], measure, now, slots_of(session))
            self._tried_again = len(state.records)
            self.progress.stage("confirming the front")
            now = confirm_front(state.records, state.cut, measure, now)
        except KeyboardInterrupt:
            now = replace(now, failed="interrupted")
            raise
        finally:
            state.confirm(now)
            store.save_confirmation(self.study, now)
        if now.failed:
            log.warning("some trials were not timed again: %s", now.failed)

    def _candidate(self, record: TrialRecord) -> Candidate:
        space = self.config.space
        return space.baseline_candidate() if record.is_baseline else space.candidate(record.params)

    def open(self, session: Session) -> None:
        """Load the model in the worker while the tracker connects here."""
        _ = warm_start_of(self.config)  # what it refuses is said before the model is loaded
        self.progress.stage("loading the model")
        preparing = session.prepare()
        config = self.config
        uid = self.study.user_attrs[store.UID]
        self.mirror = Outbox(
            config.tracker, StudyHeader(uid, config.name, config.project, config.home, config.resolved)
        )
        self.trials.mirror = self.mirror
        try:
            self.machine = awaited(preparing, session, self.progress)
        except ObjectiveError as error:
            raise ConfigError(str(error)) from error
        except Exception as error:  # the worker timed out, was killed or met a bug while it loaded
            raise BaselineFailed(f"loading the model: {type(error).__name__}: {error}") from error
        self.mirror.ready()
        self._settle_sources(session)
        opening.settle_machine(self.study, self.machine)

    def drop_mirror(self) -> None:
        """Let the tracker's thread end: the study has no result."""
        if self.mirror is not None:
            self.mirror.stop()

    def _settle_sources(self, session: Session) -> None:
        """Compare the inputs of scores with those that the study began with, and store those that are new."""
        opening.settle_sources(self.study, [*self.config.read, *session.sources().result()])

    def run(self, session: Session) -> StopReason:
        """Measure until there is a reason to stop, confirm the front, and return the reason.

        Cells that were taken for dominated may matter again by the confirmed figures: then the search goes on.
        """
        self._begin(session)
        self._inform(session)
        while True:
            before = len(self.state.records)
            reason = self._search(session)
            if before == len(self.state.records) and self._confirmed_once:
                return reason
            self.confirm(session)
            self._confirmed_once = True
            if reason is not StopReason.COMPLETE:
                return reason

    def _begin(self, session: Session) -> None:
        if self.state.telling.baseline is None:
            self.progress.stage("measuring the baseline")
            baseline = self._measure_baseline(session)
            self._settle_sources(session)  # scoring may have read more
            self._report()
            self.state.telling.warn_of_a_floor_above(baseline)
        else:
            self.state.telling.require_sound(self.state.telling.baseline)
            self.progress.stage(f"resuming after {len(self.state.records)} trials")

    def _inform(self, session: Session) -> None:
        """Tell the sampler what it needs to know, and note what the user wants first.

        For a sampler that cannot use a warm start that includes the front of the study that ``warm_start`` names.
        """
        sampler, self._first = self.study.sampler, self.config.first
        if isinstance(sampler, Informed):
            warm_start = warm_start_of(self.config, self._losses(session))
            sampler.inform(self._grid, self._known, warm_start)
            self._informed = True
        else:
            self._first += first_cells(self.config)

    def _known(self) -> Observations:
        """Return what the trials tell about the cells, and which cells are in flight."""
        known, flight = self.state.known(), self.trials.flight
        return replace(known, pending=flight.cells(self._grid)) if flight else known

    def _search(self, session: Session) -> StopReason:
        """Keep as many trials in flight as ``session`` has slots, until a limit is reached or no cell is worth one."""
        flight = self.trials.flight
        while True:
            if len(flight) < slots_of(session):
                reason = self._limit() or self._completed()
                if reason is None:
                    self._send(session)
                    continue
                if not flight:
                    return reason
            self.trials.land(session)
            self._report()

    def _send(self, session: Session) -> None:
        self._final = None
        wanted = next(self._wanted(), None)
        trial = self.study.ask() if wanted is None else self.trials.ask_for(wanted)
        cell = self.config.space.suggest(trial) if wanted is None else wanted
        self.progress.stage(", ".join(f"{path}={value}" for path, value in cell.items()))
        self.trials.send(session, trial, cell)

    def _wanted(self) -> Iterator[Cell]:
        """Yield the cells that are to be measured whatever the sampler thinks: those lost once, and the first ones."""
        for cell in (*self.state.tries.owed, *self._first):
            if self.state.closed_cells.by(cell) is None and cell not in self.trials.flight:
                yield cell

    def _ask_losses(self, session: Session) -> None:
        """Let ``session`` predict the loss of every recipe, where that is not known and the grid can be enumerated."""
        grid, is_known = self._grid, store.losses_of(self.study) is not None
        if self._predicting or is_known or len(grid) > MOST_CELLS or not isinstance(self.study.sampler, Informed):
            return
        _, first = np.unique(grid.recipes, return_index=True)
        candidates = [self.config.space.candidate(grid.cell(index)) for index in first.tolist()]
        self._predicting = session.predict_losses(candidates)

    def _losses(self, session: Session) -> list[float] | None:
        """Return the predicted loss of every recipe, nats, or None where it is not known."""
        self._ask_losses(session)
        if self._predicting is None:
            return store.losses_of(self.study)
        self.progress.stage("predicting how much accuracy compression costs")
        try:
            losses = self._predicting.result()
        except Unmeasured as error:
            log.warning("what compression loses was not predicted: %s", error)
            return None
        store.save_losses(self.study, losses)
        return losses

    def _limit(self) -> StopReason | None:
        """Return which of the study's limits is reached, or will be by the trials in flight; else None."""
        state = self.state
        return self.config.limits.reached(state.records, state.tries.spent, len(self.trials.flight), self._grown)

    def _completed(self) -> StopReason | None:
        """Return COMPLETE where no cell is left that is worth a trial now, else None.

        An informed sampler decides. Before the last word, with nothing in flight, its surrogates are fitted again as
        the certificate fits them. For any other sampler all cells must be closed, or have to wait for those in flight.
        """
        sampler, flight = self.study.sampler, self.trials.flight
        finished = isinstance(sampler, Informed) and sampler.finished()
        if next(self._wanted(), None) is not None:
            return None
        if not isinstance(sampler, Informed):
            closed = len(self.state.closed_cells) >= len(self.config.space)
            waits = flight and isinstance(sampler, DistinctSampler) and not sampler.has_free(self.study)
            return StopReason.COMPLETE if closed or waits else None
        if not finished:
            return None
        if flight:
            return StopReason.COMPLETE
        self.state.read_anew()
        if not sampler.finished(anew=True):
            return None
        self._final = sampler.latest() if isinstance(sampler, Forecasting) else None
        return StopReason.COMPLETE

    def _report(self) -> None:
        """Show the progress, and note when the hypervolume grew last."""
        front, records = self.state.front(), self.state.records
        if front.hypervolume > self._hypervolume * (1 + GROWTH):
            self._hypervolume, self._grown = front.hypervolume, self.state.tries.spent
        self.progress.trial(records, front)

    def _measure_baseline(self, session: Session) -> TrialRecord:
        """Run the baseline as the first trial; a crash is tried once more. Raises BaselineFailed."""
        cell = self.config.space.baseline()
        for _attempt in range(2):
            trial = self.trials.ask_for(cell)
            self.trials.send(session, trial, cell, is_baseline=True)
            if slots_of(session) > 1:
                self._ask_losses(session)  # another device has nothing to do yet
            record = self.trials.land(session)
            if record.state == "complete":
                self.state.telling.require_objectives(record)
                self.state.telling.require_sound(record)
                return record
            if is_final(record):
                break
        raise BaselineFailed(
            f"the baseline (unpruned, 16 bits) could not be measured: {record.reason}: {record.message}"
        )
