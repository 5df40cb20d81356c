"""Turns the outcome of a trial into the study's record, and tells Optuna.

A measured trial is told with its accuracy as a constraint: how far it lies below the floor, relative to the floor. A
trial that fails for good (out of memory, too slow, unsupported) is told as pruned, with a violated constraint of that
name and with its severity where that is known, so that the sampler avoids its neighbourhood. A crash is told as failed,
since it may have been chance; once it repeats, it is told as pruned too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.study import Study
from optuna.trial import Trial, TrialState

from objectives.metrics import METRICS
from objectives.models.notes import notes_of
from objectives.tasks.finite import not_finite, number
from objectives.tasks.several import tasks_of, weights_of
from objectives.types import Facts, Failure, Gate, Measurement, Outcome, Reason
from search.config.study_config import StudyConfig
from search.errors import BaselineFailed, ConfigError, Unmeasured
from search.front.asked import FLOOR, accuracies_of, asked_of, bands_of, named_metric, outside
from search.front.feasibility import is_scored
from search.front.metric_limits import LIMIT, limits_on
from search.records.trial import TrialRecord
from search.samplers.frontier import Informed
from search.space.grid import recipe_count
from search.study.closed_cells import is_final

log = logging.getLogger(__name__)

_MEASURED_AS = {"throughput": "speedup", "memory_ratio": "peak_memory"}
"""Objectives that the study computes, each with the measured metric that it computes it from."""


def admitted(outcome: Any, is_baseline: bool = False) -> Outcome:
    """Return the outcome of an executor with plain finite numbers only, or a Failure where its numbers are not valid.

    Executors and tasks may be a user's own, and only outcomes come from outside: this is the one place to check them.
    """
    if isinstance(outcome, Failure):
        known = {name: value for name, value in outcome.metrics.items() if name not in not_finite(outcome.metrics)}
        severity = 1.0 if not_finite({"": outcome.severity}) else outcome.severity
        return replace(outcome, message=str(outcome.message), severity=severity, metrics=known)
    if not isinstance(outcome, Measurement):
        return Failure(Reason.ERROR, f"the executor returned {type(outcome).__name__}, no Measurement and no Failure")
    wrong = not_finite(outcome.metrics)
    if wrong:
        shown = ", ".join(f"{name} is {outcome.metrics[name]!r}" for name in wrong[:3])
        return Failure(Reason.NOT_FINITE, f"{', '.join(wrong)} not finite ({shown})")
    facts: Any = outcome.facts
    if not isinstance(facts, Facts):
        return Failure(Reason.ERROR, f"the outcome's facts are {type(facts).__name__}, no objectives.types.Facts")
    missing = _missing(outcome, is_baseline)
    if missing:
        return Failure(Reason.ERROR, f"the outcome lacks {', '.join(missing)}")
    metrics = {name: found for name, value in outcome.metrics.items() if (found := number(value)) is not None}
    if not 0.0 <= metrics.get("accuracy", 0.0) <= 1.0:
        return Failure(Reason.ERROR, f"an accuracy lies in [0, 1], got {metrics['accuracy']:g}")
    return replace(outcome, metrics=metrics, notes=notes_of(outcome.notes))


def require_timed(measured: Any) -> Measurement:
    """Return ``measured``, checked. Raises Unmeasured where it is no measurement of finite numbers with a speed-up."""
    if not isinstance(measured, Measurement):
        raise Unmeasured(f"the executor returned {type(measured).__name__}, no Measurement")
    wrong = not_finite(measured.metrics)
    if wrong or "speedup" not in measured.metrics:
        raise Unmeasured(f"{', '.join(wrong)} not finite" if wrong else "the outcome lacks speedup")
    return measured


def _missing(outcome: Measurement, is_baseline: bool) -> list[str]:
    """Return the names of the metrics that the outcome must have and lacks."""
    ended_early = bool(outcome.facts.tasks) and outcome.facts.is_missed  # of several tasks
    wanted = [] if outcome.facts.is_unscored or ended_early else ["accuracy"]
    if "speedup" in outcome.metrics or is_baseline:  # a simulated trial has neither speed nor bytes
        wanted += ["speedup", "peak_memory", *(["throughput"] if is_baseline else [])]
    return [name for name in wanted if name not in outcome.metrics]


class Telling:
    """Turns the outcomes of one study into records, and tells Optuna; ``baseline``: its measured baseline, or None."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._tasks = tuple(name for name in tasks_of(config.task) if name)
        self.baseline: TrialRecord | None = None

    def see(self, record: TrialRecord) -> None:
        """Keep ``record`` as the reference of all other trials where it is the first measured baseline."""
        if self.baseline is None and record.is_baseline and record.state == "complete":
            self.baseline = record

    @property
    def floor(self) -> float:
        """Return the accuracy floor as an accuracy, of several tasks that of their mean; requires a baseline."""
        assert self.baseline is not None
        accuracy, floor = self.baseline.metrics["accuracy"], self._config.floor
        return floor.of_mean(accuracy) if self._tasks else floor.absolute(accuracy)

    @property
    def floors(self) -> dict[str, float]:
        """Return the floors of several tasks as accuracies, by name; empty for one. Requires a measured baseline."""
        assert self.baseline is not None
        return self._floors(self.baseline.metrics)

    def _floors(self, metrics: Mapping[str, float]) -> dict[str, float]:
        return {name: self._config.floor.of_task(name, metrics[f"accuracy.{name}"]) for name in self._tasks}

    @property
    def error(self) -> float:
        """Return the chance of a wrong verdict that one floor of a recipe may have; 0 where every example is scored.

        Verdicts are wrong together with at most the sum of their chances, whatever their dependence (union bound).
        """
        floors = sum(self._config.floor.of(name) > 0 for name in self._tasks)
        return self._config.floor.error / recipe_count(self._config.space.axes) / max(1, floors)

    def gate_for(self, study: Study, members: Sequence[TrialRecord], pace: float | None = None) -> Gate | None:
        """Return how precisely the accuracy of the next candidate has to be known. Requires a measured baseline.

        None: every example is scored, since accuracy is an objective or no error is allowed. ``members``: those of the
        front; ``pace``: seconds that the baseline took when they were timed, where that is known.
        """
        error, sampler = self.error, study.sampler
        if not error or any(name.startswith("accuracy") for name in self._config.objectives):
            return None
        if not isinstance(sampler, Informed):
            return Gate(self.floor, error, floors=self.floors)
        incumbents = tuple(map(self._incumbent, members))
        return Gate(
            self.floor,
            error,
            skip_timing_if_missed=True,
            incumbents=incumbents,
            timed_first=sampler.timed_first(),
            pace=pace,
            floors=self.floors,
        )

    def _incumbent(self, member: TrialRecord) -> Mapping[str, float]:
        """Return the member's objectives by the names that an evaluator measures (``_MEASURED_AS``)."""
        names = (_MEASURED_AS.get(name, name) for name in self._config.objectives)
        return {name: member.metrics[name] for name in names}

    def to_record(self, blank: TrialRecord, outcome: Outcome) -> TrialRecord:
        """Return ``blank`` completed with what was measured, or with the reason why nothing was."""
        outcome = admitted(outcome, self.baseline is None)
        if isinstance(outcome, Failure):
            reason, known = str(outcome.reason), outcome.metrics
            return replace(blank, metrics=known, reason=reason, message=outcome.message, severity=outcome.severity)
        metrics = dict(outcome.metrics)
        reference = self.baseline.metrics if self.baseline else metrics
        if "speedup" in metrics:  # a simulated trial has neither speed nor bytes
            metrics["memory_ratio"] = metrics["peak_memory"] / reference["peak_memory"]
            # Free of drift: blocks minutes apart differ by more than candidates do, paired ratios do not. The scale is
            # that of the baseline's first seconds until the study ends: see search.study.timescale.
            metrics["throughput"] = reference["throughput"] * metrics["speedup"]
        if outcome.facts.verdict is not None and self.baseline is not None:
            metrics["floor"] = self.floor
        if not outcome.facts.is_unscored:
            metrics |= {f"{FLOOR}{name}": floor for name, floor in self._floors(reference).items()}
        record = replace(blank, state="complete", metrics=metrics, notes=outcome.notes, facts=outcome.facts)
        return self._config.metric_limits.on(record)

    def require_sound(self, baseline: TrialRecord) -> None:
        """Raise BaselineFailed for a baseline by which a study means nothing: no better than chance, outside a band."""
        self._require_above_chance(baseline)
        missed = outside(bands_of(baseline.metrics))
        if missed:
            raise BaselineFailed(
                f"the baseline (unpruned, 16 bits) has a {'; '.join(missed)}: it is not feasible itself; give a model "
                "that keeps this range, or another range (that of a length ratio is the task's length_band)",
                ConfigError.exit_code,
            )

    def _require_above_chance(self, baseline: TrialRecord) -> None:
        """Raise BaselineFailed where guessing is as accurate as the baseline: a share of that would be no floor."""
        floor, metrics = self._config.floor, baseline.metrics
        chances = {task: metrics.get(named_metric("chance", task), 0.0) for task in accuracies_of(metrics)}
        for task, accuracy in accuracies_of(metrics).items():
            self._refuse_chance(
                f" on {task}" if task else "", accuracy, chances[task], floor.of(task) if task else floor.epsilon
            )
        if self._tasks and floor.mean:
            weights = weights_of(self._config.task)
            guess = math.fsum(weights[task] * chance for task, chance in chances.items())
            self._refuse_chance(" on the mean of all tasks", metrics["accuracy"], guess, floor.mean)

    def _refuse_chance(self, where: str, accuracy: float, chance: float, share: float) -> None:
        if self._config.floor.relative and share > 0 and accuracy <= chance:
            guess = f"guessing gives {chance:.4g}" if chance else "no accuracy is lost by any compression"
            raise BaselineFailed(
                f"the baseline (unpruned, 16 bits) has an accuracy{where} of {accuracy:.4g}, and {guess}: a floor of "
                f"{share:g} of it means nothing; give a model that does this task, or an absolute floor "
                "(accuracy_floor=absolute accuracy_floor.epsilon=...)",
                ConfigError.exit_code,
            )

    def warn_of_a_floor_above(self, baseline: TrialRecord) -> None:
        """Warn where the baseline misses a floor, so that only a better candidate would reach it."""
        for each in asked_of(baseline, self.floor):
            if each.short > 0:
                log.warning(
                    "accuracy_floor.%s: the floor of %.4g lies above the baseline's accuracy of %.4g",
                    each.task or ("mean" if self._tasks else "epsilon"), each.floor, each.value,
                )  # fmt: skip

    def require_objectives(self, baseline: TrialRecord) -> None:
        """Raise ConfigError for an objective or a limited metric that is not measured for this model and workload."""
        for name in self._config.objectives:
            if name not in baseline.metrics and name != "memory_ratio":
                known = ", ".join(baseline.metrics)
                raise ConfigError(f"objectives: {name} is not measured for this model and workload; measured: {known}")
        for name in self._config.metric_limits.limits.keys() - baseline.metrics.keys():
            known = ", ".join(each for each in baseline.metrics if each in METRICS)
            raise ConfigError(f"limits.{name}: it is not measured for this model and workload; measured: {known}")

    def tell(self, study: Study, trial: Trial, record: TrialRecord, settled: bool = False) -> None:
        """Tell Optuna the outcome of ``trial``; ``settled``: its cell needs no further trial."""
        if is_scored(record) and all(name in record.metrics for name in self._config.objectives):
            self._constrain(trial, record)
            study.tell(trial, self._values(record.metrics))
        elif record.facts.is_missed:
            self._constrain(trial, record)
            study.tell(trial, state=TrialState.PRUNED)
        elif record.state == "complete":  # nobody asked for its accuracy
            trial.set_constraint("unscored", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        elif is_final(record) or settled:
            trial.set_constraint(record.reason or "unmeasured", record.severity)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, state=TrialState.FAIL)

    def _values(self, metrics: Mapping[str, float]) -> list[float]:
        return [metrics[name] for name in self._config.objectives]

    def _constrain(self, trial: Trial, record: TrialRecord) -> None:
        """Tell how far each accuracy lies below its floor, relative to the floor, and the excess over bands and limits.

        At most 0 means feasible. A task that was not scored says nothing.
        """
        for each in asked_of(record, self.floor):
            if not math.isnan(each.value):
                violation = each.short / (each.floor or 1.0)
                # A race may decide while the estimate is still on the other side.
                violation = min(violation, 0.0) if each.is_kept else max(violation, 1e-6)
                trial.set_constraint(named_metric("accuracy", each.task), violation)
        for band in bands_of(record.metrics):
            trial.set_constraint(band.metric, band.excess)
        for limit in limits_on(record.metrics):
            trial.set_constraint(f"{LIMIT}{limit.metric}", limit.excess)
