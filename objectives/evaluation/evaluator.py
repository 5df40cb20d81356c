"""From a candidate to its measurement, in stages: compress -> weigh -> score -> time.

What a model is (its bytes, its accuracy) depends on the recipe, not on the batch size: both are found once per recipe.
With a cache, what a stage found is kept by its content, and a candidate that is known in full is not even built. With a
gate, accuracy is scored as far as the floor asks for; what misses it may go untimed, and what is behind another in
everything else unscored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from objectives.errors import ModelError, Unsupported
from objectives.evaluation.dominance import DominanceCheck
from objectives.evaluation.failures import failure_of
from objectives.evaluation.floor_test import decide
from objectives.evaluation.model_pool import ModelPool
from objectives.evaluation.problem import CheckReport, Problem
from objectives.evaluation.recipe import recipe_of
from objectives.evaluation.scoring import Scored, Scorer
from objectives.evaluation.timing import CandidateTimer
from objectives.evaluation.weigher import Weighed, Weigher
from objectives.measuring.bench import Reference
from objectives.measuring.fingerprint import fingerprint
from objectives.measuring.footprint import Footprint
from objectives.measuring.stored_facts import measurement_of, stored_measurement
from objectives.models import LoadedModel
from objectives.protocols.candidate import Candidate, Pruner, Quantizer
from objectives.protocols.running import Runner
from objectives.tasks.paired import paired_difference
from objectives.tasks.provenance import Source, own_classes
from objectives.types import (
    Decision,
    Facts,
    Failure,
    Gate,
    Measurement,
    Note,
    NoteCode,
    Outcome,
    Reason,
    Score,
    Verdict,
)

_VOLATILE = ("git_revision", "kernel", "python", "paretune")
"""Facts of the fingerprint that change no timing, or that the content of the code says better."""


@dataclass(frozen=True)
class Accuracy:
    """What a trial says of it: ``scored`` is None where it was not asked."""

    scored: Scored | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    notes: tuple[Note, ...] = ()


_UNSCORED = Accuracy(
    None,
    facts=Facts(verdict=Verdict(Decision.UNSCORED)),
    notes=(Note(NoteCode.NOT_SCORED, "not scored: another is at least as good in every objective"),),
)
_SIMULATED = Measurement({}, notes=(Note(NoteCode.SIMULATED, "simulated"),))
_NOT_TIMED = Measurement(
    {}, notes=(Note(NoteCode.NOT_TIMED, "not timed: its accuracy misses the floor"),), facts=Facts(timing_skipped=True)
)


class Evaluator:
    """Measures candidates of one problem. Lives in one process and keeps what candidates share."""

    def __init__(self, problem: Problem) -> None:
        """Cheap; the model is loaded on first use. Raises ModelError or Unsupported when device or kinds clash."""
        self.problem = problem
        problem.device.start()
        for kind, part in (("task", problem.task), ("workload", problem.baseline.workload)):
            if part.head != problem.model.head:
                raise ModelError(f"{kind} drives {part.head} models, model.head is {problem.model.head}")
        self.recipes = ModelPool(problem)
        self.running = CandidateTimer(self.recipes)
        self._weigher, self._scorer = Weigher(self.recipes), Scorer(self.recipes)
        self._losses: dict[Pruner | Quantizer, float] = {}
        self._run_seconds = 0.0

    def __call__(self, candidate: Candidate, gate: Gate | None = None) -> Outcome:
        """Measure one candidate. What cannot be measured comes back as a Failure, never as an exception.

        ``gate``: the accuracy floor, where the accuracy need not be known any better than whether it is kept.
        """
        try:
            return self._measure(candidate, gate)
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            if failure.reason is Reason.OUT_OF_MEMORY:
                self.recipes.forget()
            return failure

    def predict(self, candidate: Candidate) -> Mapping[str, float]:
        """What is known of a candidate before it is built or run, from statistics that are gathered once.

        ``predicted_loss``: log-loss per token that it is expected to cost, pruning and rounding taken apart and added;
        ``predicted_peak``: bytes of its weights and of a run. What one cannot tell is absent. Raises Unsupported for a
        candidate that cannot be built.
        """
        found = {"predicted_loss": self.predict_loss(candidate)}
        shapes = self.recipes.shapes(candidate)
        if shapes is not None:
            found["predicted_peak"] = float(shapes.peak)
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def predict_losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """The first of these alone; NaN for what one cannot tell or build."""
        return [self._predicted_loss(candidate) for candidate in candidates]

    def _predicted_loss(self, candidate: Candidate) -> float:
        name = self.recipes.stages.name(candidate, "predict")
        kept = self.recipes.stages.get("predict", name)
        if kept is not None:
            return math.nan if kept["loss"] is None else float(kept["loss"])
        try:
            loss = self.predict_loss(candidate)
        except Unsupported:
            loss = math.nan
        self.recipes.stages.put("predict", name, {"loss": loss if math.isfinite(loss) else None})
        return loss

    def predict_loss(self, candidate: Candidate) -> float:
        """Of one candidate, where nothing is kept; each part is asked once, whatever it goes with."""
        trained = candidate.recovery.trains and candidate.pruning != self.problem.baseline.pruning
        if trained or not candidate.quantization.predicts:
            return math.nan
        for part in (candidate.pruning, candidate.quantization):
            if part not in self._losses:
                self._losses[part] = part.predict(self.recipes.statistics)
        return self._losses[candidate.pruning] + self._losses[candidate.quantization]

    def confirm(self, candidates: Sequence[Candidate]) -> list[Measurement]:
        """Time ``candidates`` once more, against each other; speed only.

        Raises MemoryError where one cannot fit by itself, Unsupported where one cannot be built.
        """
        return self.running.confirm(candidates)

    def prepare(self) -> Mapping[str, str]:
        """Load the model; returns hardware, versions and the hash of the weights. Raises ModelError, TaskError.

        A user's task scores the baseline here, before any trial: what it gets wrong is no trial's fault.
        """
        self.recipes.inputs.prepare()
        if own_classes(self.problem.task):
            self._scorer.baseline()
        return {**fingerprint(self.problem.device), "model_sha256": self.problem.model.weights_hash()}

    def sources(self) -> list[Source]:
        """What scores depend on, as far as it was read: see :mod:`objectives.tasks.provenance`."""
        return self.recipes.inputs.sources()

    def check(self) -> CheckReport:
        """Look at the problem: see :mod:`objectives.evaluation.checkup`. Raises ObjectiveError."""
        from objectives.evaluation.checkup import checkup

        return checkup(self.recipes)

    def compressed(self, candidate: Candidate) -> LoadedModel:
        """The model of a candidate, in torch; the latest ones are kept."""
        return self.recipes.model(candidate)

    def runner(self, candidate: Candidate) -> Runner:
        """What runs a candidate; the latest ones are kept."""
        return self.recipes.runner(candidate)

    def score(self, candidate: Candidate) -> Score:
        """Of a candidate's model, whatever its workload, on all examples; found once."""
        return self._scorer.score(candidate).score

    def _measure(self, candidate: Candidate, gate: Gate | None) -> Outcome:
        self._run_seconds = 0.0
        known = self._known_run(candidate)
        shapes = self.recipes.shapes(candidate) if known is None else None
        reference = self.running.reference(candidate, shapes) if known is None else None
        if reference == "sentinel":  # what the baseline has to say, while it is where it runs
            self.running.baseline_over_reference()
            self.score(self.problem.baseline)
        with self.running.baseline_offloaded(reference, [candidate]):
            weighed = self._weigher.weigh(candidate)
            ran = known
            incumbents = DominanceCheck(gate, weighed.metrics)
            if gate is not None and gate.timed_first and not weighed.simulated:
                ran = known or self._run(candidate, reference, shapes, incumbents)
                if incumbents.of(ran):
                    return self._measurement(candidate, weighed, ran, _UNSCORED, known)
            scored = self._scorer.score(candidate, gate)
            accuracy = self._accuracy(scored, gate)
            if weighed.simulated:  # rounded but not stored so: its speed and bytes would be those of 16 bits
                ran = _SIMULATED
            elif ran is None and gate is not None and gate.skip and accuracy.facts.is_missed:
                ran = _NOT_TIMED
            elif ran is None:
                ran = self._run(candidate, reference, shapes, incumbents)
        return self._measurement(candidate, weighed, ran, accuracy, known)

    def _measurement(
        self, candidate: Candidate, weighed: Weighed, ran: Measurement, accuracy: Accuracy, known: Measurement | None
    ) -> Outcome:
        metrics = {**weighed.metrics, **accuracy.metrics, **ran.metrics}
        metrics |= self._stages(candidate, accuracy.scored, known)
        wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
        if wrong:
            return Failure(Reason.NOT_FINITE, f"{', '.join(wrong)} not finite")
        score = None if accuracy.scored is None else accuracy.scored.score
        samples = dict(ran.samples) if score is None else {**ran.samples, "accuracy": score.examples}
        told = accuracy.facts
        facts = replace(ran.facts, verdict=told.verdict, link=told.link)
        notes = (*ran.notes, *weighed.notes, *accuracy.notes)
        return Measurement(metrics, samples, notes, facts, () if score is None else score.ids)

    def _accuracy(self, scored: Scored, gate: Gate | None) -> Accuracy:
        """What is known of it, of its difference to the baseline, and of the floor."""
        baseline, score = self._scorer.baseline(), self._scorer.estimated(scored.score)
        found = {"accuracy": score.accuracy, "accuracy_stderr": score.stderr}
        found["examples"] = float(len(score.examples))
        if score.chance is not None:
            found["chance"] = score.chance
        if score.total is None:
            found |= score.extra
            difference = paired_difference(score, baseline)
            if difference is not None:
                found["accuracy_difference"] = difference.value
                found["accuracy_difference.low"], found["accuracy_difference.high"] = difference.low, difference.high
        facts = Facts(link=score.link)
        if gate is None or not math.isfinite(score.accuracy):
            return Accuracy(scored, found, facts)
        judged = decide(scored.score, baseline, gate.floor, gate.error)
        if math.isfinite(judged.low):
            found["accuracy_interval.low"], found["accuracy_interval.high"] = judged.low, judged.high
        return Accuracy(scored, found, replace(facts, verdict=judged.verdict))

    def _stages(self, candidate: Candidate, scored: Scored | None, known: Measurement | None) -> dict[str, float]:
        """Seconds that each stage took now, and that earlier work spared."""
        spared = 0.0 if known is None else known.metrics["timing_seconds"]
        return {
            "compress_seconds": self.recipes.seconds.pop(recipe_of(candidate), 0.0),
            "score_seconds": 0.0 if scored is None else scored.seconds,
            "run_seconds": self._run_seconds,
            "saved_seconds": spared + (0.0 if scored is None else scored.saved),
        }

    # ---- timing

    def _known_run(self, candidate: Candidate) -> Measurement | None:
        """As it was timed earlier, on a machine like this one, while that was calm."""
        found = self.recipes.stages.get("time", self._run_name(candidate))
        return None if found is None else measurement_of(found)

    def _run(
        self, candidate: Candidate, reference: Reference | None, shapes: Footprint | None, incumbents: DominanceCheck
    ) -> Measurement:
        """Beside the baseline, in full or until the candidate is behind another for sure."""
        began = time.perf_counter()
        given = (candidate, reference, shapes, incumbents.weights)
        ran = self.running.run(*given, incumbents.stop_below(shapes))
        if ran.facts.is_cut_short and not incumbents.of(ran):  # it took less memory than was predicted
            ran = self.running.run(*given)
        self._run_seconds = time.perf_counter() - began
        whole = not ran.metrics.get("contended") and not ran.facts.is_cut_short
        if whole and all(map(math.isfinite, ran.metrics.values())):
            self.recipes.stages.put("time", self._run_name(candidate), stored_measurement(ran))
        return ran

    def _run_name(self, candidate: Candidate) -> str | None:
        start = self.problem.baseline.workload
        return self.recipes.stages.name(
            candidate, "time", candidate.workload, start, self.problem.timing, self._machine
        )

    @cached_property
    def _machine(self) -> Mapping[str, str]:
        found = fingerprint(self.problem.device)
        return {name: fact for name, fact in found.items() if name not in _VOLATILE}
