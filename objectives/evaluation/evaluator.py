"""Turns a candidate into its measurement, in stages: compress -> weigh -> score -> time.

A model's bytes and accuracy depend on the recipe, not on the batch size: both are found once per recipe. With a cache,
the result of a stage is kept by its content, and a candidate that is known in full is not even built. With a gate,
accuracy is scored only until it is known whether the floor is reached. A candidate that misses the floor may stay
untimed, and one that is dominated in everything else unscored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from objectives.errors import ModelError, ProcessLost
from objectives.evaluation.dominance import DominanceCheck
from objectives.evaluation.failures import failure_of
from objectives.evaluation.loss_predictor import LossPredictor
from objectives.evaluation.model_pool import ModelPool
from objectives.evaluation.problem import CheckReport, Problem
from objectives.evaluation.recipe import recipe_of
from objectives.evaluation.task_scores import UNSCORED, Accuracy, TaskScores
from objectives.evaluation.timing import CandidateTimer
from objectives.evaluation.weigher import Weighed, Weigher
from objectives.measuring.fingerprint import fingerprint
from objectives.measuring.footprint import Footprint
from objectives.measuring.stored_facts import measurement_of, stored_measurement
from objectives.models import LoadedModel
from objectives.models.heads import is_run_alike
from objectives.protocols.candidate import Candidate
from objectives.protocols.running import Runner
from objectives.tasks.provenance import Source, own_code
from objectives.types import (
    Facts,
    Failure,
    Gate,
    Measurement,
    Note,
    NoteCode,
    Outcome,
    Reason,
    Reference,
    Score,
)

_VOLATILE = ("git_revision", "kernel", "python", "paretune")
"""Facts of the fingerprint that change no timing, or that the content of the code says better."""


_SIMULATED = Measurement({}, notes=(Note(NoteCode.SIMULATED, "simulated"),))
_NOT_TIMED = Measurement(
    {}, notes=(Note(NoteCode.NOT_TIMED, "not timed: its accuracy misses the floor"),), facts=Facts(timing_skipped=True)
)


class Evaluator:
    """Measures candidates of one problem. Lives in one process and keeps what candidates share."""

    def __init__(self, problem: Problem) -> None:
        """Start the device; the model is loaded on first use.

        Raises ModelError where task or workload drive another kind of model, Unsupported where the device is not there.
        """
        self.problem = problem
        problem.device.start()
        task, workload, head = problem.task.head, problem.baseline.workload.head, problem.model.head
        for kind, driven, fits in (("task", task, task == head), ("workload", workload, is_run_alike(workload, head))):
            if not fits:
                raise ModelError(f"{kind} drives {driven} models, model.head is {head}")
        self.pool = ModelPool(problem)
        self.timer = CandidateTimer(self.pool)
        self._weigher, self._scores = Weigher(self.pool), TaskScores(self.pool)
        self._losses = LossPredictor(self.pool)
        self._run_seconds = 0.0

    def __call__(self, candidate: Candidate, gate: Gate | None = None) -> Outcome:
        """Measure one candidate. A candidate that cannot be measured is a Failure, never an exception.

        ``gate``: the accuracy floor, where it is enough to know whether the accuracy reaches it.
        """
        try:
            return self._measure(candidate, gate)
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            if failure.reason is Reason.OUT_OF_MEMORY:
                self.pool.forget()
            elif isinstance(error, ProcessLost):
                self._forget_all()
            return failure

    def _forget_all(self) -> None:
        """Drop every model that is kept: a process that ended may be that of any."""
        self.pool.forget()
        self.timer.forget()

    def predict(self, candidate: Candidate) -> Mapping[str, float]:
        """Predict metrics of a candidate before it is built or run, from statistics that are gathered once.

        ``predicted_loss``: log-loss per token that it is expected to cost, the sum of what pruning and rounding cost;
        ``predicted_peak``: bytes of its weights and of a run. A metric that one cannot tell is absent. Raises
        Unsupported for a candidate that cannot be built.
        """
        metrics = {"predicted_loss": self._losses.predict(candidate)}
        shapes = self.pool.shapes(candidate)
        if shapes is not None:
            metrics["predicted_peak"] = float(shapes.peak)
        return {name: value for name, value in metrics.items() if not math.isnan(value)}

    def predict_losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """Predict the log-loss per token of each candidate, from the cache where it is there.

        NaN where one cannot tell, or where the candidate cannot be built.
        """
        return [self._losses.known_or_predicted(candidate) for candidate in candidates]

    def confirm(self, candidates: Sequence[Candidate]) -> list[Measurement]:
        """Time ``candidates`` once more, against each other; speed only.

        Raises MemoryError where one cannot fit by itself, Unsupported where one cannot be built, ProcessLost.
        """
        try:
            return self.timer.confirm(candidates)
        except ProcessLost:
            self._forget_all()
            raise

    def prepare(self) -> Mapping[str, str]:
        """Load the model; returns hardware, versions and the hash of the weights. Raises ModelError, TaskError.

        A user's task or function scores the baseline here, before any trial: what it gets wrong is no trial's fault.
        """
        self.pool.inputs.prepare()
        if own_code(self.problem.task):
            self._scores.whole(self.problem.baseline)
        return {**fingerprint(self.problem.device), "model_sha256": self.problem.model.weights_hash()}

    def sources(self) -> list[Source]:
        """Return what scores depend on, as far as it was read: see :mod:`objectives.tasks.provenance`."""
        return self.pool.inputs.sources()

    def check(self) -> CheckReport:
        """Look at the problem: see :mod:`objectives.evaluation.checkup`. Raises ObjectiveError."""
        from objectives.evaluation.checkup import checkup

        return checkup(self.pool)

    def compressed(self, candidate: Candidate) -> LoadedModel:
        """Return the model of a candidate, in torch; the latest ones are kept."""
        return self.pool.model(candidate)

    def runner(self, candidate: Candidate) -> Runner:
        """Return the runner of a candidate; the latest ones are kept."""
        return self.pool.runner(candidate)

    def score(self, candidate: Candidate) -> Score:
        """Return the score of a candidate's model on all examples; a recipe is scored once, whatever its workload."""
        return self._scores.whole(candidate)

    def _measure(self, candidate: Candidate, gate: Gate | None) -> Outcome:
        """Compress, weigh, score and time a candidate, in the order that ``gate`` asks for.

        A candidate is not timed where its bits are simulated, where it misses the floor and the gate says that such
        ones need not be, or where the cache holds its timing. Its timing ends early, and it is not scored, where an
        incumbent of the gate dominates it. Whether it is evaluated at all (a cell that a failure closed, one that no
        runtime supports) was decided before, in :mod:`search.study.trials`.
        """
        self._run_seconds = 0.0
        known = self._known_run(candidate)
        shapes = self.pool.shapes(candidate) if known is None else None
        reference = self.timer.reference(candidate, shapes) if known is None else None
        if reference is Reference.SENTINEL:  # measured now, while the baseline is still on the device
            self.timer.baseline_over_reference()
            self.score(self.problem.baseline)
        with self.timer.baseline_offloaded(reference, [candidate]):
            weighed = self._weigher.weigh(candidate)
            ran = known
            incumbents = DominanceCheck(gate, weighed.metrics)
            if gate is not None and gate.timed_first and not weighed.simulated:
                ran = known or self._run(candidate, reference, shapes, incumbents)
                if incumbents.dominate(ran):
                    return self._measurement(candidate, weighed, ran, UNSCORED, known)
            accuracy = self._scores.accuracy(candidate, gate)
            if weighed.simulated:  # stored in 16 bits all the same: its speed and bytes would be those of 16 bits
                ran = _SIMULATED
            elif ran is None and gate is not None and gate.skip_timing_if_missed and accuracy.facts.is_missed:
                ran = _NOT_TIMED
            elif ran is None:
                ran = self._run(candidate, reference, shapes, incumbents)
        return self._measurement(candidate, weighed, ran, accuracy, known)

    def _measurement(
        self, candidate: Candidate, weighed: Weighed, ran: Measurement, accuracy: Accuracy, known: Measurement | None
    ) -> Outcome:
        metrics = {**weighed.metrics, **accuracy.metrics, **ran.metrics}
        metrics |= self._stages(candidate, accuracy, known)
        wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
        if wrong:
            return Failure(Reason.NOT_FINITE, f"{', '.join(wrong)} not finite")
        told = accuracy.facts
        facts = replace(ran.facts, verdict=told.verdict, link=told.link, tasks=told.tasks)
        notes = (*ran.notes, *weighed.notes, *accuracy.notes)
        return Measurement(metrics, {**ran.samples, **accuracy.samples}, notes, facts, accuracy.ids)

    def _stages(self, candidate: Candidate, accuracy: Accuracy, known: Measurement | None) -> dict[str, float]:
        """Return the seconds that each stage took now, and those that earlier work saved."""
        spared = 0.0 if known is None else known.metrics["timing_seconds"]
        return {
            "compress_seconds": self.pool.seconds.pop(recipe_of(candidate), 0.0),
            "score_seconds": accuracy.seconds,
            "run_seconds": self._run_seconds,
            "saved_seconds": spared + accuracy.saved,
        }

    # ---- timing

    def _known_run(self, candidate: Candidate) -> Measurement | None:
        """Return the timing that was kept earlier, on a calm machine like this one; None where there is none."""
        stored = self.pool.stages.get("time", self._run_name(candidate))
        return None if stored is None else measurement_of(stored)

    def _run(
        self, candidate: Candidate, reference: Reference | None, shapes: Footprint | None, incumbents: DominanceCheck
    ) -> Measurement:
        """Run the candidate beside ``reference``, in full or until it is surely dominated, and keep a calm full run."""
        began = time.perf_counter()
        arguments = (candidate, reference, shapes, incumbents.weights)
        ran = self.timer.run(*arguments, incumbents.stop_below(shapes))
        if ran.facts.is_cut_short and not incumbents.dominate(ran):  # it took less memory than was predicted
            ran = self.timer.run(*arguments)
        self._run_seconds = time.perf_counter() - began
        whole = not ran.metrics.get("contended") and not ran.facts.is_cut_short
        if whole and all(map(math.isfinite, ran.metrics.values())):
            self.pool.stages.put("time", self._run_name(candidate), stored_measurement(ran))
        return ran

    def _run_name(self, candidate: Candidate) -> str | None:
        start = self.problem.baseline.workload
        return self.pool.stages.name(candidate, "time", candidate.workload, start, self.problem.timing, self._machine)

    @cached_property
    def _machine(self) -> Mapping[str, str]:
        facts = fingerprint(self.problem.device)
        return {name: fact for name, fact in facts.items() if name not in _VOLATILE}
