"""From a candidate to its measurement, in stages: compress -> weigh -> score -> time.

What a model is (its bytes, its accuracy) depends on the recipe, not on the batch size: both are found once per recipe.
With a cache, what a stage found is kept by its content, and a candidate that is known in full is not even built. With a
gate, accuracy is scored as far as the floor asks for, and what misses it may go untimed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from objectives.errors import ModelError, Unsupported
from objectives.measuring.bench import Ran, Reference
from objectives.measuring.fingerprint import fingerprint
from objectives.measuring.footprint import Footprint
from objectives.measuring.weighing import block_weights, weigh
from objectives.models import LoadedModel
from objectives.problem import Problem
from objectives.recipes import Recipe, Recipes, recipe_of
from objectives.running import Running
from objectives.scoring import Scored, Scorer
from objectives.tasks.paired import paired_difference
from objectives.types import Candidate, Failure, Gate, Measurement, Outcome, Reason, Score
from objectives.verdict import judge

_VOLATILE = ("git_revision", "kernel", "python", "paretune")
"""Facts of the fingerprint that change no timing, or that the content of the code says better."""


@dataclass(frozen=True)
class Weighed:
    """What a model is, apart from its speed and accuracy."""

    metrics: Mapping[str, float]
    notes: tuple[str, ...]
    simulated: bool


class Evaluator:
    """Measures candidates of one problem. Lives in one process and keeps what candidates share."""

    def __init__(self, problem: Problem) -> None:
        """Cheap; the model is loaded on first use. Raises ModelError or Unsupported when device or kinds clash."""
        self.problem = problem
        problem.device.start()
        for kind, part in (("task", problem.task), ("workload", problem.baseline.workload)):
            if part.head != problem.model.head:
                raise ModelError(f"{kind} drives {part.head} models, model.head is {problem.model.head}")
        self.recipes = Recipes(problem)
        self.running = Running(self.recipes)
        self._scorer = Scorer(self.recipes)
        self._weighed: dict[Recipe, Weighed] = {}

    def __call__(self, candidate: Candidate, gate: Gate | None = None) -> Outcome:
        """Measure one candidate. What cannot be measured comes back as a Failure, never as an exception.

        ``gate``: the accuracy floor, where the accuracy need not be known any better than whether it is kept.
        """
        try:
            return self._measure(candidate, gate)
        except Unsupported as error:
            return Failure(Reason.UNSUPPORTED, str(error))
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            text = "a matrix of this recipe has no inverse: more calibration rows, damping or ridge would give it one"
            return Failure(Reason.UNSUPPORTED, f"{text} ({str(error).splitlines()[0]})")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.recipes.built.clear()
            lines = str(error).strip().splitlines()  # Python's own MemoryError says nothing
            return Failure(Reason.OUT_OF_MEMORY, lines[0] if lines else "out of memory")

    def predict(self, candidate: Candidate) -> Mapping[str, float]:
        """What is known of a candidate before it is built or run, from statistics that are gathered once.

        ``predicted_loss``: log-loss per token that it is expected to cost, pruning and rounding taken apart and added;
        ``predicted_peak``: bytes of its weights and of a run. What one cannot tell is absent. Raises Unsupported for a
        candidate that cannot be built.
        """
        found = {}
        if not candidate.recovery.trains or candidate.pruning == self.problem.baseline.pruning:
            statistics = self.recipes.statistics
            found["predicted_loss"] = candidate.pruning.predict(statistics) + candidate.quantization.predict(statistics)
        shapes = self.recipes.shapes(candidate)
        if shapes is not None:
            found["predicted_peak"] = float(shapes.peak)
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def confirm(self, candidates: Sequence[Candidate]) -> list[Measurement]:
        """Time ``candidates`` once more, against each other; speed only.

        Raises MemoryError where one cannot fit by itself, Unsupported where one cannot be built.
        """
        return [Measurement(ran.metrics, ran.samples, ran.notes, ran.facts) for ran in self.running.confirm(candidates)]

    def prepare(self) -> Mapping[str, str]:
        """Load the model; returns hardware, versions and the hash of the weights. Raises ModelError."""
        self.recipes.prepare()
        return {**fingerprint(self.problem.device), "model_sha256": self.problem.model.weights_hash()}

    def compressed(self, candidate: Candidate) -> LoadedModel:
        """The model of a candidate, ready to run; the latest ones are kept."""
        return self.recipes.model(candidate)

    def score(self, candidate: Candidate) -> Score:
        """Of a candidate's model, whatever its workload, on all examples; found once."""
        return self._scorer.score(candidate).score

    def _measure(self, candidate: Candidate, gate: Gate | None) -> Outcome:
        known = self._known_run(candidate)
        shapes = self.recipes.shapes(candidate) if known is None else None
        reference = self.running.reference(candidate, shapes) if known is None else None
        if reference == "sentinel":  # what the baseline has to say, while it is where it runs
            self.running.link()
            self.score(self.problem.baseline)
        with self.running.parked(reference == "sentinel"):
            weighed = self._weigh(candidate)
            scored = self._scorer.score(candidate, gate)
            metrics, facts = self._accuracy(scored, gate)
            missed = gate is not None and gate.skip and facts.get("verdict") == "missed"
            if weighed.simulated:  # rounded but not stored so: its speed and bytes would be those of 16 bits
                ran = Ran({}, notes=("simulated",))
            elif missed:
                ran = Ran({}, notes=("not timed: its accuracy misses the floor",))
            else:
                ran = known or self._run(candidate, reference, shapes, weighed)
        metrics = {**weighed.metrics, **metrics, **ran.metrics, **self._stages(candidate, scored, known)}
        wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
        if wrong:
            return Failure(Reason.NOT_FINITE, f"{', '.join(wrong)} not finite")
        samples = {**ran.samples, "accuracy": scored.score.examples}
        return Measurement(metrics, samples, (*ran.notes, *weighed.notes), {**ran.facts, **facts}, scored.score.ids)

    def _accuracy(self, scored: Scored, gate: Gate | None) -> tuple[dict[str, float], dict[str, str]]:
        """What is known of it, of its difference to the baseline, and of the floor."""
        baseline, score = self._scorer.baseline(), self._scorer.estimated(scored.score)
        found = {"accuracy": score.accuracy, "accuracy_stderr": score.stderr}
        found["examples"] = float(len(score.examples))
        if score.total is None:
            found |= score.extra
            difference = paired_difference(score, baseline)
            if difference is not None:
                found["accuracy_difference"] = difference.value
                found["accuracy_difference.low"], found["accuracy_difference.high"] = difference.low, difference.high
        facts: dict[str, str] = {} if score.link == "mean" else {"link": score.link}
        if gate is None or not math.isfinite(score.accuracy):
            return found, facts
        judged = judge(scored.score, baseline, gate.floor(baseline.accuracy), gate.error)
        if math.isfinite(judged.low):
            found["accuracy_interval.low"], found["accuracy_interval.high"] = judged.low, judged.high
        return found, {**facts, "verdict": judged.decision, "verdict_by": judged.method}

    def _stages(self, candidate: Candidate, scored: Scored, known: Ran | None) -> dict[str, float]:
        """Seconds that each stage took now, and that earlier work spared."""
        compress = self.recipes.seconds.pop(recipe_of(candidate), 0.0)
        saved = scored.saved + (known.metrics["timing_seconds"] if known is not None else 0.0)
        return {"compress_seconds": compress, "score_seconds": scored.seconds, "saved_seconds": saved}

    # ---- weighing

    def _weigh(self, candidate: Candidate) -> Weighed:
        recipe = recipe_of(candidate)
        if recipe not in self._weighed:
            self._weighed[recipe] = self._kept_weights(candidate) or self._new_weights(candidate)
        return self._weighed[recipe]

    def _kept_weights(self, candidate: Candidate) -> Weighed | None:
        found = self._get("weigh", self.recipes.name(candidate, "weigh"))
        return None if found is None else Weighed(**{**found, "notes": tuple(found["notes"])})

    def _new_weights(self, candidate: Candidate) -> Weighed:
        model = self.recipes.model(candidate)
        metrics = weigh(model, block_weights(self.recipes.source))
        if model.simulated:
            metrics = {
                name: value for name, value in metrics.items() if not name.endswith(("_bytes", "effective_bits"))
            }
        if not math.isnan(model.predicted_loss):
            metrics["predicted_loss"] = model.predicted_loss
        found = Weighed(metrics, tuple(model.notes), model.simulated)
        self._put("weigh", self.recipes.name(candidate, "weigh"), asdict(found))
        return found

    # ---- timing

    def _known_run(self, candidate: Candidate) -> Ran | None:
        """As it was timed earlier, on a machine like this one, while that was calm."""
        found = self._get("time", self._run_name(candidate))
        if found is None:
            return None
        samples = {name: tuple(values) for name, values in found["samples"].items()}
        return Ran(found["metrics"], samples, tuple(found["notes"]), found["facts"])

    def _run(
        self, candidate: Candidate, reference: Reference | None, shapes: Footprint | None, weighed: Weighed
    ) -> Ran:
        ran = self.running.run(candidate, reference, shapes, weighed.metrics)
        if not ran.metrics.get("contended") and all(map(math.isfinite, ran.metrics.values())):
            self._put("time", self._run_name(candidate), asdict(ran))
        return ran

    def _run_name(self, candidate: Candidate) -> str | None:
        start = self.problem.baseline.workload
        return self.recipes.name(candidate, "time", candidate.workload, start, self.problem.timing, self._machine)

    @cached_property
    def _machine(self) -> Mapping[str, str]:
        found = fingerprint(self.problem.device)
        return {name: fact for name, fact in found.items() if name not in _VOLATILE}

    # ---- the cache

    def _get(self, stage: str, name: str | None) -> dict[str, Any] | None:
        cache = self.problem.cache
        return None if cache is None or name is None else cache.get(stage, name)

    def _put(self, stage: str, name: str | None, value: Mapping[str, Any]) -> None:
        if self.problem.cache is not None and name is not None:
            self.problem.cache.put(stage, name, value)


def is_out_of_memory(error: BaseException) -> bool:
    """CPU allocation failures are plain RuntimeErrors, CUDA's a subclass: both are told by their text."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
