"""The loop of a running study: it asks for a cell, evaluates it, records the outcome, and decides when to stop.

The baseline (unpruned, 16 bits, first batch size) is always the first trial: it sets a relative floor and is the
reference of every gain. A cell that was measured before is answered from its record. A failed trial is recorded like
any other: see :mod:`search.study.telling`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from optuna.study import Study
from optuna.trial import Trial

from objectives.errors import ObjectiveError
from objectives.protocols.candidate import Candidate
from objectives.types import Measurement
from search.config.limits import GROWTH
from search.config.study_config import StudyConfig
from search.errors import BaselineFailed, ConfigError, Unmeasured
from search.executors.protocol import Session
from search.frontier.certificate import Certificate, certificate_of, certify
from search.frontier.forecast import Forecast
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
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
from search.tracking.protocol import StudyHeader

log = logging.getLogger(__name__)


class Loop:
    """Runs one study: its baseline, its trials and its confirmation."""

    def __init__(self, config: StudyConfig, study: Study, progress: Progress) -> None:
        self.config, self.study, self.progress = config, study, progress
        self.trials = Trials(config, study, progress)
        self.machine: Mapping[str, str] = {}
        self._tried_again, self._confirmed_once = 0, False
        self._hypervolume, self._grown = 0.0, len(self.state.records)
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
            return certify(Grid.of(space), state.read(), state.front())
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
            now = time_again(state.records[self._tried_again :], measure, now)
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
        self.trials.mirror = config.tracker.open(
            StudyHeader(uid, config.name, config.project, config.home, config.resolved)
        )
        try:
            self.machine = awaited(preparing, session, self.progress)
        except ObjectiveError as error:
            raise ConfigError(str(error)) from error
        except Exception as error:  # the worker timed out, was killed or met a bug while it loaded
            raise BaselineFailed(f"loading the model: {type(error).__name__}: {error}") from error
        self._settle_sources(session)
        opening.settle_machine(self.study, self.machine)

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
        """Tell the sampler what it needs to know, and measure what the user wants first."""
        sampler = self.study.sampler
        if isinstance(sampler, Informed):
            grid = Grid.of(self.config.space)
            sampler.inform(grid, self.state.known, warm_start_of(self.config, self._losses(session, grid)))
            self._informed = True
        for cell in self._first():
            if self.state.closed_cells.by(cell) is None and self._limit() is None:
                self._trial(session, self.trials.ask_for(cell), cell, is_baseline=False)
                self._report()

    def _search(self, session: Session) -> StopReason:
        while (reason := self._limit() or self._completed()) is None:
            trial = self.study.ask()
            cell = self.config.space.suggest(trial)
            self.progress.stage(", ".join(f"{path}={value}" for path, value in cell.items()))
            self._trial(session, trial, cell, is_baseline=False)
            self._report()
        return reason

    def _losses(self, session: Session, grid: Grid) -> list[float] | None:
        """Return the predicted loss of every recipe, nats, or None where it is not known or the grid is too large."""
        known = store.losses_of(self.study)
        if known is not None or len(grid) > MOST_CELLS:
            return known
        self.progress.stage("predicting how much accuracy compression costs")
        _, first = np.unique(grid.recipes, return_index=True)
        candidates = [self.config.space.candidate(grid.cell(index)) for index in first.tolist()]
        try:
            losses = session.predict_losses(candidates).result()
        except Unmeasured as error:
            log.warning("what compression loses was not predicted: %s", error)
            return None
        store.save_losses(self.study, losses)
        return losses

    def _first(self) -> tuple[Cell, ...]:
        """Return the cells to measure first.

        For a sampler that cannot use a warm start they include the front of the study that ``warm_start`` names.
        """
        cells = self.config.first
        return cells if isinstance(self.study.sampler, Informed) else (*cells, *first_cells(self.config))

    def _limit(self) -> StopReason | None:
        """Return which of the study's limits is reached, or None."""
        return self.config.limits.reached(self.state.records, self._grown)

    def _completed(self) -> StopReason | None:
        """Return COMPLETE where no cell is left that is worth a trial, else None.

        An informed sampler decides, with surrogates fitted again as the certificate fits them. For any other sampler
        all cells must be closed.
        """
        sampler = self.study.sampler
        if not isinstance(sampler, Informed):
            return StopReason.COMPLETE if len(self.state.closed_cells) >= len(self.config.space) else None
        if not sampler.finished():
            return None
        self.state.read_anew()
        if not sampler.finished(anew=True):
            return None
        self._final = sampler.latest() if isinstance(sampler, Forecasting) else None
        return StopReason.COMPLETE

    def _report(self) -> None:
        """Show the progress, and note when the hypervolume grew last."""
        front, records = self.state.front(), self.state.records
        if front.hypervolume > self._hypervolume * (1 + GROWTH):
            self._hypervolume, self._grown = front.hypervolume, len(records)
        self.progress.trial(records, front)

    def _measure_baseline(self, session: Session) -> TrialRecord:
        """Run the baseline as the first trial; a crash is tried once more. Raises BaselineFailed."""
        cell = self.config.space.baseline()
        for _attempt in range(2):
            trial = self.trials.ask_for(cell)
            record = self._trial(session, trial, cell, is_baseline=True)
            if record.state == "complete":
                self.state.telling.require_objectives(record)
                self.state.telling.require_sound(record)
                return record
            if is_final(record):
                break
        raise BaselineFailed(
            f"the baseline (unpruned, 16 bits) could not be measured: {record.reason}: {record.message}"
        )

    def _trial(self, session: Session, trial: Trial, cell: Cell, is_baseline: bool) -> TrialRecord:
        self._final = None
        return self.trials.run(session, trial, cell, is_baseline)
