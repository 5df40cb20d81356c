"""The study: ask, evaluate, tell, until the budget is spent or every cell is known.

The baseline (unpruned, 16 bits, first batch size) is always the first trial: it sets a relative floor and is the
reference of every gain. A cell that was measured before is answered from its record. A failed trial is data: those
that would fail again (out of memory, too slow, unsupported) are told as pruned with a violated constraint, so that
the sampler keeps away; a crash is told as failed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Protocol

import numpy as np
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import Trial, TrialState

from objectives.errors import ObjectiveError
from objectives.types import Candidate, Failure, Gate, Measurement, Outcome
from search import store
from search.config import StudyConfig
from search.confirmation import Confirmation, confirm_front, confirmed, is_timed, time_again
from search.errors import BaselineFailed, ConfigError, Interrupted
from search.executors.protocol import Runner
from search.feasible import is_feasible
from search.front import ParetoFront, cut
from search.frontier.evidence import FINAL, closed_by, known_of
from search.frontier.grid import MOST_CELLS, Grid, recipe_count
from search.frontier.outlook import Known
from search.records import TrialRecord
from search.samplers.frontier import Informed
from search.signals import interrupted, sigterm_interrupts
from search.space import Cell
from search.stopping import GROWTH, StopReason
from search.tracking.protocol import Mirror, StudyHeader

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Shown while a study runs."""

    def stage(self, text: str) -> None:
        """What is going on now."""

    def trial(self, records: Sequence[TrialRecord], front: ParetoFront) -> None:
        """One more trial is finished."""


@dataclass(frozen=True)
class StudyResult:
    """A study as it stands: rows, front, and why it stopped."""

    config: StudyConfig
    records: tuple[TrialRecord, ...]
    front: ParetoFront
    machine: Mapping[str, str]
    stop_reason: StopReason
    mirror: Mirror
    confirmation: Confirmation
    interrupted: Interrupted | None = None


def run_study(config: StudyConfig, progress: Progress) -> StudyResult:
    """Run or resume the study. Raises ConfigError, StudyConflict, BaselineFailed, or Interrupted before a baseline."""
    with store.running(config), sigterm_interrupts():
        study = store.open_study(config, config.sampler)
        loop = Loop(config, study, progress)
        stopped = None
        try:
            with config.executor.start(config.problem) as runner:
                loop.open(runner)
                stop_reason = loop.run(runner)
                loop.confirm(runner)
        except (ConfigError, BaselineFailed):
            store.discard_if_empty(study)
            raise
        except KeyboardInterrupt as error:
            stopped = interrupted(error)
            stop_reason = StopReason.INTERRUPTED
            loop.abandon()
            if loop.baseline is None:
                raise stopped from None
        store.save_stop(study, stop_reason)
        return StudyResult(
            config, tuple(loop.confirmed), loop.front(), loop.machine, stop_reason, loop.mirror, loop.confirmation,
            stopped,
        )  # fmt: skip


class Loop:
    """The state of a running study: what is known, and what is asked next."""

    mirror: Mirror

    def __init__(self, config: StudyConfig, study: Study, progress: Progress) -> None:
        self.config, self.study, self.progress = config, study, progress
        self.machine: Mapping[str, str] = {}
        self._settle_orphans()
        self.records = store.records_of(study)
        self.confirmation = store.confirmation_of(study)
        self._running: Trial | None = None
        self._hypervolume, self._grown = 0.0, len(self.records)

    @property
    def baseline(self) -> TrialRecord | None:
        """The measured baseline."""
        return next((record for record in self.records if record.is_baseline and record.state == "complete"), None)

    def front(self) -> ParetoFront:
        """The front of what is measured so far; needs the baseline."""
        return self._cut(self.confirmed)

    @property
    def confirmed(self) -> list[TrialRecord]:
        """The records, with the speeds that were confirmed."""
        return confirmed(self.records, self.confirmation)

    def _cut(self, records: Sequence[TrialRecord]) -> ParetoFront:
        assert self.baseline is not None
        return cut(records, self.config.objectives, self._floor(), self.config.tradeoff)

    def confirm(self, runner: Runner) -> None:
        """Time contended trials again, then the members of the front against each other; a failure costs a warning."""
        if not self.config.confirm or not is_timed(self.config.objectives):
            return

        def measure(records: Sequence[TrialRecord]) -> Sequence[Measurement]:
            return runner.confirm([self._candidate(record) for record in records]).result()

        self.confirmation = replace(self.confirmation, failed="")
        try:
            self.progress.stage("timing contended trials again")
            self.confirmation = time_again(self.records, measure, self.confirmation)
            self.progress.stage("confirming the front")
            self.confirmation = confirm_front(self.records, self._cut, measure, self.confirmation)
        except KeyboardInterrupt:
            self.confirmation = replace(self.confirmation, failed="interrupted")
            raise
        finally:
            store.save_confirmation(self.study, self.confirmation)
        if self.confirmation.failed:
            log.warning("not all was timed again: %s", self.confirmation.failed)

    def _candidate(self, record: TrialRecord) -> Candidate:
        space = self.config.space
        return space.baseline_candidate() if record.is_baseline else space.candidate(record.params)

    def open(self, runner: Runner) -> None:
        """Load the model in the worker while the tracker connects here."""
        self.progress.stage("loading the model")
        preparing = runner.prepare()
        config = self.config
        uid = self.study.user_attrs[store.UID]
        self.mirror = config.tracker.open(StudyHeader(uid, config.name, config.project, config.home, config.resolved))
        try:
            self.machine = preparing.result()
        except ObjectiveError as error:
            raise ConfigError(str(error)) from error
        except Exception as error:  # the worker timed out, was killed or met a bug while it loaded
            raise BaselineFailed(f"loading the model: {type(error).__name__}: {error}") from error
        store.settle_machine(self.study, self.machine)

    def run(self, runner: Runner) -> StopReason:
        """Measure until a reason to stop; returns it."""
        if self.baseline is None:
            self.progress.stage("measuring the baseline")
            self._measure_baseline(runner)
            self._report()
        else:
            self.progress.stage(f"resuming after {len(self.records)} trials")
        sampler = self.study.sampler
        if isinstance(sampler, Informed):
            sampler.inform(self._grid, self._evidence)
        while (reason := self._reached(sampler)) is None:
            trial = self.study.ask()
            cell = self.config.space.suggest(trial)
            self.progress.stage(", ".join(f"{path}={value}" for path, value in cell.items()))
            self._trial(runner, trial, cell, is_baseline=False)
            self._report()
        return reason

    def _reached(self, sampler: BaseSampler) -> StopReason | None:
        """Why to stop now."""
        if self._known_cells() >= len(self.config.space):
            return StopReason.COMPLETE
        limit = self.config.limits.reached(self.records, self._grown)
        if limit is None and isinstance(sampler, Informed) and sampler.finished():
            return StopReason.COMPLETE
        return limit

    @cached_property
    def _grid(self) -> Grid:
        return Grid(self.config.space.axes)

    def _evidence(self) -> Known:
        """What the trials so far say of the grid."""
        return known_of(self._grid, self.records, self.config.objectives, self._floor())

    def _floor(self) -> float:
        assert self.baseline is not None
        return self.config.floor.absolute(self.baseline.metrics["accuracy"])

    @property
    def _gate(self) -> Gate | None:
        """How far accuracy has to be known; None where it is an objective itself."""
        floor, axes = self.config.floor, self.config.space.axes
        if not floor.error or any(name.startswith("accuracy") for name in self.config.objectives):
            return None
        skip = isinstance(self.study.sampler, Informed)
        return Gate(floor.epsilon, floor.relative, floor.error / recipe_count(axes), skip)

    def _report(self) -> None:
        front = self.front()
        if front.hypervolume > self._hypervolume * (1 + GROWTH):
            self._hypervolume, self._grown = front.hypervolume, len(self.records)
        self.progress.trial(self.records, front)

    def _known_cells(self) -> int:
        """Cells that are measured, failed for good, or must fail like another."""
        space = self.config.space
        known = [record for record in self.records if _is_known(record) and record.params in space]
        cells = {_key(record.params) for record in known}
        failed = [record for record in known if record.state == "failed"]
        if failed and len(space) <= MOST_CELLS:
            closed = closed_by(self._grid, failed)
            cells |= {_key(self._grid.cell(index)) for index in np.flatnonzero(closed).tolist()}
        return len(cells)

    def _measure_baseline(self, runner: Runner) -> None:
        """First trial; a crash is given one more chance."""
        cell = self.config.space.baseline()
        for _attempt in range(2):
            trial = self._ask_for(cell)
            record = self._trial(runner, trial, cell, is_baseline=True)
            if record.state == "complete":
                self._require_objectives(record)
                return
            if _is_known(record):
                break
        raise BaselineFailed(
            f"the baseline (unpruned, 16 bits) could not be measured: {record.reason}: {record.message}"
        )

    def _ask_for(self, cell: Cell) -> Trial:
        """A trial of exactly ``cell``; outside the space it has no parameters, so no sampler learns from it."""
        space = self.config.space
        if cell not in space:
            return self.study.ask()
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.enqueue_trial(space.sampled(cell))
        trial = self.study.ask()
        space.suggest(trial)
        return trial

    def _require_objectives(self, baseline: TrialRecord) -> None:
        for name in self.config.objectives:
            if name not in baseline.metrics and name != "memory_ratio":
                known = ", ".join(baseline.metrics)
                raise ConfigError(f"objectives: {name} is not measured for this model and workload; measured: {known}")

    def _trial(self, runner: Runner, trial: Trial, cell: Cell, is_baseline: bool) -> TrialRecord:
        self._running = trial
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        uid = f"{self.study.user_attrs[store.UID]}:{trial.number}"
        blank = TrialRecord(trial.number, uid, dict(cell), "failed", is_baseline=is_baseline, started=started)
        known = self._lookup(cell)
        samples: Mapping[str, object] = {}
        if known is not None:
            record = _repeat(known, blank)
        else:
            outcome = self._evaluate(runner, cell, is_baseline)
            record = self._filled(blank, outcome)
            if isinstance(outcome, Measurement):
                samples = {**outcome.samples, "ids": outcome.ids}
                if "verdict" in record.facts and self.baseline is not None:
                    record = replace(record, metrics={**record.metrics, "floor": self._floor()})
        record = replace(record, seconds=time.monotonic() - clock)
        store.save_record(self.study, trial.number, record, samples)
        self.records.append(record)
        self._tell(trial, record)
        self._running = None
        self.mirror.log(record)
        return record

    def _evaluate(self, runner: Runner, cell: Cell, is_baseline: bool) -> Outcome:
        space = self.config.space
        candidate = space.baseline_candidate() if is_baseline else space.candidate(cell)
        return runner.evaluate(candidate, None if is_baseline else self._gate).result()

    def _lookup(self, cell: Cell) -> TrialRecord | None:
        key = _key(cell)
        return next((record for record in self.records if _key(record.params) == key and _is_known(record)), None)

    def _filled(self, blank: TrialRecord, outcome: Outcome) -> TrialRecord:
        if isinstance(outcome, Failure):
            return replace(blank, reason=str(outcome.reason), message=outcome.message)
        metrics = dict(outcome.metrics)
        reference = self.baseline.metrics if self.baseline else metrics
        if "speedup" in metrics:  # a simulated trial has neither speed nor bytes
            metrics["memory_ratio"] = metrics["peak_memory"] / reference["peak_memory"]
            # Free of drift: blocks minutes apart differ by more than candidates do, paired ratios do not. The scale is
            # that of the baseline's first seconds until the study ends: see search.scale.
            metrics["throughput"] = reference["throughput"] * metrics["speedup"]
        return replace(blank, state="complete", metrics=metrics, notes=outcome.notes, facts=outcome.facts)

    def _tell(self, trial: Trial, record: TrialRecord) -> None:
        if record.state == "complete" and all(name in record.metrics for name in self.config.objectives):
            trial.set_constraint("accuracy", self._violation(record))
            self.study.tell(trial, [record.metrics[name] for name in self.config.objectives])
        elif record.facts.get("verdict") == "missed":
            trial.set_constraint("accuracy", self._violation(record))
            self.study.tell(trial, state=TrialState.PRUNED)
        elif _is_known(record):
            trial.set_constraint(record.reason or "unmeasured", 1.0)
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _violation(self, record: TrialRecord) -> float:
        """How far below the floor, relative to it: <= 0 is feasible, and a sampler feels the severity."""
        baseline = self.baseline or record
        floor = self.config.floor.absolute(baseline.metrics["accuracy"])
        violation = (floor - record.metrics["accuracy"]) / (floor or 1.0)
        # A race may decide while the estimate is still on the other side.
        return min(violation, 0.0) if is_feasible(record, floor) else max(violation, 1e-6)

    def abandon(self) -> None:
        """Close the trial that a signal cut short."""
        if self._running is not None:
            self._settle_orphans()
            self.records = store.records_of(self.study)

    def _settle_orphans(self) -> None:
        """Tell trials that were cut short: by their record when it was saved, else as interrupted."""
        for frozen in store.orphans(self.study):
            record = store.saved_record(frozen)
            if record is None:
                record = store.interrupted_record(self.study, frozen)
                store.save_record(self.study, frozen.number, record, {})
            values = [record.metrics[name] for name in self.config.objectives if name in record.metrics]
            measured = record.state == "complete" and len(values) == len(self.config.objectives)
            if measured and frozen.constraints:
                self.study.tell(frozen.number, values)
            else:
                self.study.tell(frozen.number, state=TrialState.FAIL)


def _key(cell: Cell) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(cell.items()))


def _is_known(record: TrialRecord) -> bool:
    """Whether measuring the cell again would tell nothing new."""
    return record.state == "complete" or record.reason in FINAL


def _repeat(known: TrialRecord, blank: TrialRecord) -> TrialRecord:
    """The record of a cell that is known already."""
    origin = known.number if known.cached_from is None else known.cached_from
    return replace(
        known,
        number=blank.number,
        uid=blank.uid,
        started=blank.started,
        is_baseline=False,
        cached_from=origin,
    )
