"""From a candidate to its measurement, in stages: compress -> weigh -> score -> time.

Accuracy depends on the recipe, not on the batch size, so it is scored once per recipe; the latest compressed
models are kept, so that candidates which differ only in their workload skip straight to timing. The dense
baseline stays loaded: every candidate is timed in turns with it.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import torch

from objectives.calibration import Domains, Statistics
from objectives.checkpoint import disk_bytes
from objectives.errors import ModelError, Unsupported
from objectives.measuring.bench import Bench, Ran, Reference
from objectives.measuring.fingerprint import digest, fingerprint
from objectives.measuring.footprint import FAKE_ERRORS, Footprint, footprint, skeleton_of, sketch
from objectives.measuring.ledger import gains, promises, verdict
from objectives.measuring.roofline import Peaks, peaks
from objectives.measuring.weighing import block_weights, stored_bytes, weigh
from objectives.models import LoadedModel
from objectives.problem import Problem
from objectives.tasks.paired import paired_difference
from objectives.types import (
    Candidate,
    Failure,
    Measurement,
    Outcome,
    Pruner,
    Quantizer,
    Reason,
    Recovery,
    Score,
    Workload,
)

Recipe = tuple[Pruner, Recovery, Quantizer]

DENSE_TRIES = 3
"""How often the dense model is timed at one workload while the machine is busy: all gains there hang on it."""

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
        self._dense: dict[Workload, Mapping[str, float]] = {}
        self._dense_tries: dict[Workload, int] = {}
        self._footprints: dict[tuple[Recipe, Workload], Footprint | None] = {}

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

    def predict(self, candidate: Candidate) -> Mapping[str, float]:
        """What is known of a candidate before it is built or run, from statistics that are gathered once.

        ``predicted_loss``: log-loss per token that it is expected to cost, pruning and rounding taken apart and added;
        ``predicted_peak``: bytes of its weights and of a run. What one cannot tell is absent. Raises Unsupported for a
        candidate that cannot be built.
        """
        found = {}
        if not candidate.recovery.trains or candidate.pruning == self.problem.baseline.pruning:
            statistics = self._statistics
            found["predicted_loss"] = candidate.pruning.predict(statistics) + candidate.quantization.predict(statistics)
        shapes = self._shapes(candidate)
        if shapes is not None:
            found["predicted_peak"] = float(shapes.peak)
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def confirm(self, candidates: Sequence[Candidate]) -> list[Measurement]:
        """Time ``candidates`` once more, in as many shared rounds with the baseline as memory allows; speed only.

        Raises MemoryError where one cannot fit by itself, Unsupported where one cannot be built.
        """
        found: dict[int, Ran] = {}
        waiting = list(enumerate(candidates))
        while waiting:
            group, reference = self._together([candidate for _, candidate in waiting])
            own, waiting = waiting[:group], waiting[group:]
            if reference == "sentinel":
                self._bench.link()
            with self._parked(reference == "sentinel"):
                runs = [(candidate.workload, self.compressed(candidate)) for _, candidate in own]
                found |= dict(zip((index for index, _ in own), self._bench.confirm(runs, reference)))
        return [Measurement(ran.metrics, ran.samples, ran.notes, ran.facts) for _, ran in sorted(found.items())]

    def _together(self, candidates: Sequence[Candidate]) -> tuple[int, Reference]:
        """How many of the first fit into memory at once, by prediction, and beside what."""
        reference = self._reference(candidates[0], self._shapes(candidates[0])) or "baseline"
        if reference == "sentinel" and self._parkable():
            return 1, reference
        free, weights, run = self.problem.device.free_memory(), dict[Recipe, int](), 0
        for count, candidate in enumerate(candidates):
            shapes = self._shapes(candidate)
            if shapes is None:
                continue
            weights[_recipe(candidate)] = 0 if _recipe(candidate) in self._built else shapes.weights
            run = max(run, shapes.peak - shapes.weights)
            if count and sum(weights.values()) + run > free:
                return count, reference
        return len(candidates), reference

    def prepare(self) -> Mapping[str, str]:
        """Load the model; returns hardware, versions and the hash of the weights. Raises ModelError."""
        _ = self._calibration  # loads model and data, so that what is missing is said before the first trial
        return {**fingerprint(self.problem.device), "model_sha256": self.problem.model.weights_hash()}

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
    def _skeleton(self) -> LoadedModel:
        return skeleton_of(self._source)

    @cached_property
    def _peaks(self) -> Peaks:
        return peaks(self.problem.device, digest(fingerprint(self.problem.device)))

    @cached_property
    def _bench(self) -> Bench:
        problem = self.problem
        return Bench(problem.device, problem.timing, self._baseline, problem.baseline.workload, self._peaks)

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
        shapes = self._shapes(candidate)
        reference = self._reference(candidate, shapes)
        if reference == "sentinel":  # what the baseline has to say, while it is where it runs
            self._bench.link()
            self.score(self.problem.baseline)
        with self._parked(reference == "sentinel"):
            model = self.compressed(candidate)
            metrics = weigh(model, block_weights(self._source))
            score = self.score(candidate)
            metrics |= self._accuracy(score)
            if not math.isnan(model.predicted_loss):
                metrics["predicted_loss"] = model.predicted_loss
            if model.simulated:  # rounded but not stored so: its speed and bytes would be those of 16 bits
                metrics, ran = _without_bytes(metrics), Ran({}, notes=("simulated",))
            else:
                ran = self._run(candidate, model, reference, shapes, metrics)
        metrics |= ran.metrics
        wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
        if wrong:
            return Failure(Reason.NOT_FINITE, f"{', '.join(wrong)} not finite")
        samples = {**ran.samples, "accuracy": score.examples}
        return Measurement(metrics, samples, (*ran.notes, *model.notes), ran.facts, score.ids)

    def _accuracy(self, score: Score) -> dict[str, float]:
        """With what is known of its difference to the baseline, example by example."""
        found = {"accuracy": score.accuracy, "accuracy_stderr": score.stderr, **score.extra}
        difference = paired_difference(score, self.score(self.problem.baseline))
        if difference is not None:
            found["accuracy_difference"] = difference.value
            found["accuracy_difference.low"], found["accuracy_difference.high"] = difference.low, difference.high
        return found

    def _run(
        self,
        candidate: Candidate,
        model: LoadedModel,
        reference: Reference | None,
        shapes: Footprint | None,
        weights: Mapping[str, float],
    ) -> Ran:
        """Time and weigh the running model; ``weights``: its byte metrics."""
        ran = self._bench.run(candidate.workload, model, reference, shapes)
        metrics = {**weights, **ran.metrics, "disk_bytes": float(disk_bytes(model))}
        metrics["peak_memory"] = metrics["weight_bytes"] + metrics["activation_peak"]
        if shapes is not None:
            metrics["predicted_peak"] = float(shapes.peak)
        workload = candidate.workload
        facts, notes = dict(ran.facts), list(ran.notes)
        is_dense = _recipe(candidate) == _recipe(self.problem.baseline)
        if is_dense:
            known = self._dense.get(workload)
            if known is None or known["contended"] >= metrics["contended"]:  # the baseline is 1 by definition
                self._dense[workload] = {**metrics, "speedup.error": 0.0} if reference is None else metrics
        dense_shapes = self._shapes(replace(self.problem.baseline, workload=workload))
        if shapes is not None and dense_shapes is not None:
            metrics |= promises(shapes, dense_shapes, workload, self._peaks)
        parked = reference == "sentinel" and bool(self._parkable())
        there = is_dense or parked
        dense = self._dense.get(workload) if there else self._dense_metrics(workload, dense_shapes)
        if dense is not None:
            metrics |= gains(metrics, dense)
            if dense["contended"] and not is_dense:
                notes.append("the dense model at this batch size was timed on a busy machine")
            if not is_dense:
                facts |= verdict(metrics, model, max(workload.tokens_read, workload.batch_size))
        return replace(ran, metrics=metrics, facts=facts, notes=tuple(notes))

    def _dense_metrics(self, workload: Workload, shapes: Footprint | None) -> Mapping[str, float] | None:
        """Of the dense model at the same workload, measured up to ``DENSE_TRIES`` times until the machine is calm.

        None where it does not fit, as many a compressed one does.
        """
        known = self._dense.get(workload)
        tries = self._dense_tries.get(workload, 0)
        if known is None or (known["contended"] and tries < DENSE_TRIES):
            self._dense_tries[workload] = tries + 1
            if shapes is not None and shapes.peak - shapes.weights > self.problem.device.free_memory():
                return known
            dense = replace(self.problem.baseline, workload=workload)
            reference: Reference | None = None if dense == self.problem.baseline else "baseline"
            self._run(dense, self._baseline, reference, None, weigh(self._baseline, block_weights(self._source)))
        return self._dense[workload]

    def _shapes(self, candidate: Candidate) -> Footprint | None:
        """What a candidate will need, before it is built. None where only its accuracy will be measured, or where its
        code needs values.
        """
        key = (_recipe(candidate), candidate.workload)
        if not candidate.quantization.stored:
            return None
        if key not in self._footprints:
            model = sketch(self._skeleton, candidate, self._statistics, self.problem.device)
            try:
                self._footprints[key] = footprint(model, candidate.workload)
            except FAKE_ERRORS:  # its code looks at values: it can be measured all the same
                self._footprints[key] = None
        return self._footprints[key]

    def _reference(self, candidate: Candidate, shapes: Footprint | None) -> Reference | None:
        """What a candidate is timed beside. Raises MemoryError where it cannot fit."""
        if candidate == self.problem.baseline:
            return None
        asked = self.problem.timing.reference
        there = _recipe(candidate) in self._built
        needed = 0 if shapes is None else shapes.peak - (shapes.weights if there else 0)
        free = self.problem.device.free_memory()
        if needed > free and self._built and not there:  # of what we hold ourselves
            self._built.clear()
            gc.collect()
            free = self.problem.device.free_memory()
        if needed <= free:
            return "baseline" if asked == "auto" else asked
        if asked == "baseline" or needed > free + self._parkable():
            raise MemoryError(
                f"out of memory by prediction: {needed / 2**20:,.0f} MiB needed, {free / 2**20:,.0f} MiB free"
            )
        return "sentinel"

    def _parkable(self) -> int:
        """Bytes that the baseline takes from the device's own memory."""
        return 0 if self.problem.device.name == "cpu" else stored_bytes([self._baseline.module])

    @contextmanager
    def _parked(self, away: bool) -> Iterator[None]:
        """Keep the baseline out of the device's memory meanwhile."""
        away = away and bool(self._parkable())
        home = self._baseline.module.device
        if away:
            self._baseline.module.to("cpu")
        try:
            yield
        finally:
            if away:
                self._baseline.module.to(home)


def _without_bytes(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(("_bytes", "effective_bits"))}


def _recipe(candidate: Candidate) -> Recipe:
    return candidate.pruning, candidate.recovery, candidate.quantization


def is_out_of_memory(error: BaseException) -> bool:
    """CPU allocation failures are plain RuntimeErrors, CUDA's a subclass: both are told by their text."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
