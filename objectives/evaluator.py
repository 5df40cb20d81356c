"""From a candidate to its measurement, in stages: compress -> weigh -> score -> time.

Accuracy depends on the recipe, not on the batch size, so it is scored once per recipe; the latest compressed
models are kept, so that candidates which differ only in their workload skip straight to timing. The dense
baseline stays loaded: every candidate is timed in turns with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from statistics import median

import torch

from objectives.calibration import Domains, Statistics
from objectives.errors import ModelError, Unsupported
from objectives.measuring.interleaved import summarise
from objectives.measuring.weighing import block_weights, stored_bytes, weigh
from objectives.models import LoadedModel
from objectives.problem import Problem
from objectives.types import Candidate, Failure, Measurement, Outcome, Pruner, Quantizer, Reason, Recovery, Score

Recipe = tuple[Pruner, Recovery, Quantizer]

KEPT_BYTES = 1 << 30
"""Weights of compressed models that stay in memory beside the one in use."""


class Evaluator:
    """Measures candidates of one problem. Lives in one process and keeps what candidates share."""

    def __init__(self, problem: Problem) -> None:
        """Cheap; the model is loaded on first use. Raises ModelError or Unsupported when device or kinds clash."""
        self.problem = problem
        problem.device.start()
        for kind, part in (("task", problem.task), ("workload", problem.baseline.workload)):
            if part.head != problem.model.head:
                raise ModelError(f"{kind} drives {part.head} models, model.head is {problem.model.head}")
        self._scores: dict[Recipe, Score] = {}
        self._built: dict[Recipe, LoadedModel] = {}

    def __call__(self, candidate: Candidate) -> Outcome:
        """Measure one candidate. What cannot be measured comes back as a Failure, never as an exception."""
        try:
            return self._measure(candidate)
        except Unsupported as error:
            return Failure(Reason.UNSUPPORTED, str(error))
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            text = "a matrix of this recipe has no inverse: more calibration rows, damping or ridge would give it one"
            return Failure(Reason.UNSUPPORTED, f"{text} ({str(error).splitlines()[0]})")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._built.clear()
            lines = str(error).strip().splitlines()  # Python's own MemoryError says nothing
            return Failure(Reason.OUT_OF_MEMORY, lines[0] if lines else "out of memory")

    def predict(self, candidate: Candidate) -> float:
        """Log-loss per token that a candidate is expected to cost, from statistics that are gathered once.

        Nothing is built or run. Pruning and rounding are taken apart and added. NaN where a method cannot tell.
        Raises Unsupported for a candidate that cannot be built.
        """
        if candidate.recovery.trains and candidate.pruning != self.problem.baseline.pruning:
            return math.nan
        return candidate.pruning.predict(self._statistics) + candidate.quantization.predict(self._statistics)

    def prepare(self) -> Mapping[str, str]:
        """Load the model; returns hardware, versions and the hash of the weights. Raises ModelError."""
        import transformers

        _ = self._calibration  # loads model and data, so that what is missing is said before the first trial
        return {
            **self.problem.device.describe(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "model_sha256": self.problem.model.weights_hash(),
        }

    @cached_property
    def _source(self) -> LoadedModel:
        """The checkpoint as loaded, never changed."""
        return self.problem.model.load()

    @cached_property
    def _calibration(self) -> Domains:
        return self.problem.task.calibration(self._source)

    @cached_property
    def _baseline(self) -> LoadedModel:
        return self._compress(_recipe(self.problem.baseline), Statistics(self._source, {}))

    @cached_property
    def _statistics(self) -> Statistics:
        return Statistics(self._baseline, self._calibration)

    def _compress(self, recipe: Recipe, statistics: Statistics) -> LoadedModel:
        pruner, recovery, quantizer = recipe
        model = self._source.copy()
        pruner.prune_(model, statistics)
        recovery.recover_(model, statistics)
        quantizer.quantize_(model, statistics, self.problem.device)
        return model

    def compressed(self, candidate: Candidate) -> LoadedModel:
        """The model of a candidate, ready to run; the latest ones are kept."""
        recipe = _recipe(candidate)
        if recipe == _recipe(self.problem.baseline):
            return self._baseline
        model = self._built.pop(recipe, None)
        if model is None:
            self._make_room()
            model = self._compress(recipe, self._statistics)
        self._built[recipe] = model  # last: the order is that of use
        return model

    def score(self, candidate: Candidate) -> Score:
        """Of a candidate's model, whatever its workload; found once."""
        recipe = _recipe(candidate)
        if recipe not in self._scores:
            self._scores[recipe] = self.problem.task.evaluate(self.compressed(candidate))
        return self._scores[recipe]

    def _make_room(self) -> None:
        """Let go of the models that were not used for longest, before the next one is built."""
        sizes = {recipe: stored_bytes([model.module]) for recipe, model in self._built.items()}
        for recipe in list(sizes):
            if sum(sizes.values()) > KEPT_BYTES:
                del self._built[recipe], sizes[recipe]

    def _measure(self, candidate: Candidate) -> Outcome:
        model = self.compressed(candidate)
        metrics = weigh(model, block_weights(self._source))
        score = self.score(candidate)
        metrics |= {"accuracy": score.accuracy, "accuracy_stderr": score.stderr, **score.extra}
        if not math.isnan(model.predicted_loss):
            metrics["predicted_loss"] = model.predicted_loss
        samples: dict[str, tuple[float, ...]] = {}
        notes = tuple(model.notes)
        if model.simulated:  # rounded but not stored so: its speed and bytes would be those of 16 bits
            metrics, notes = _without_bytes(metrics), ("simulated", *notes)
        else:
            samples = self._run(candidate, model, metrics)
        wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
        if wrong:
            return Failure(Reason.NOT_FINITE, f"{', '.join(wrong)} not finite")
        return Measurement(metrics, {**samples, "accuracy": score.examples}, notes)

    def _run(self, candidate: Candidate, model: LoadedModel, metrics: dict[str, float]) -> dict[str, tuple[float, ...]]:
        """Time and weigh the running model; adds to ``metrics`` and returns the raw samples."""
        problem = self.problem
        reference = None
        if candidate != problem.baseline:
            reference = lambda: problem.baseline.workload.run(self._baseline, problem.device)  # noqa: E731
        paired = problem.timing.time(lambda: candidate.workload.run(model, problem.device), reference)
        peak = problem.device.activation_peak(lambda: candidate.workload.run(model, problem.device))
        metrics |= summarise(paired.timing)
        metrics["speedup"] = median(paired.ratios)
        metrics["activation_peak"] = float(peak)
        metrics["peak_memory"] = metrics["weight_bytes"] + peak
        timing = paired.timing
        return {"latency": timing.latency, "ttft": timing.ttft, "tpot": timing.tpot, "speedup": paired.ratios}


def _without_bytes(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(("_bytes", "effective_bits"))}


def _recipe(candidate: Candidate) -> Recipe:
    return candidate.pruning, candidate.recovery, candidate.quantization


def is_out_of_memory(error: BaseException) -> bool:
    """CPU allocation failures are plain RuntimeErrors, CUDA's a subclass: both are told by their text."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
