"""Running models beside the baseline: which fit, what they are timed beside, and what compression gained.

The dense baseline stays loaded and takes turns with every candidate. Where memory cannot hold both, it is offloaded,
and a small fixed workload takes its place (:mod:`objectives.measuring.bench`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from objectives.errors import DoesNotFit, ProcessLost, Unsupported
from objectives.evaluation.model_pool import ModelPool
from objectives.evaluation.recipe import Recipe, recipe_of
from objectives.measuring.bench import Bench
from objectives.measuring.fingerprint import digest, fingerprint
from objectives.measuring.footprint import Footprint
from objectives.measuring.gains import compared_with_own, dense_gains, gains, own_gains
from objectives.measuring.ledger import judged, promises
from objectives.measuring.roofline import peaks
from objectives.packing.weighing import block_weights, stored_bytes
from objectives.protocols.candidate import Candidate, Runtime
from objectives.protocols.readings import Peaks
from objectives.protocols.running import Runner, Workload
from objectives.protocols.serving import Loading
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.servers.kept import MOST_SERVERS
from objectives.types import Measurement, Note, NoteCode, Reference

DENSE_TRIES = 3
"""The most times that the dense model is timed at one workload while the machine is busy: gains depend on it."""


REFERENCE = RoundToNearest(bits=32, predicts=False)
"""The storage of a runtime's own dense model."""


_BUSY_DENSE = Note(NoteCode.DENSE_CONTENDED, "the dense model at this batch size was timed on a busy machine")
_BUSY_OWN = Note(
    NoteCode.DENSE_CONTENDED, "the runtime's own dense model at this batch size was timed on a busy machine"
)


class CandidateTimer:
    """Times the candidates of one problem."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool, self._problem = pool, pool.problem
        self._dense: dict[Workload, Mapping[str, float]] = {}
        self._dense_tries: dict[Workload, int] = {}
        self._own: dict[tuple[Runtime, Workload], Measurement] = {}
        self._own_tries: dict[tuple[Runtime, Workload], int] = {}

    @cached_property
    def _peaks(self) -> Peaks:
        return peaks(self._problem.device, digest(fingerprint(self._problem.device)))

    @cached_property
    def _bench(self) -> Bench:
        problem, baseline = self._problem, self._pool.reference_runner
        return Bench(problem.device, problem.timing, baseline, problem.baseline.workload, self._peaks)

    def forget(self) -> None:
        """Drop the baseline's runner, so that it is asked for once more."""
        self.__dict__.pop("_bench", None)

    def confirm(self, candidates: Sequence[Candidate]) -> list[Measurement]:
        """Time ``candidates`` in as many shared rounds with the baseline as memory allows; speed only.

        Raises MemoryError where one cannot fit by itself.
        """
        measurements: dict[int, Measurement] = {}
        waiting = list(enumerate(candidates))
        while waiting:
            size, reference = self._together([candidate for _, candidate in waiting])
            group, waiting = waiting[:size], waiting[size:]
            if reference is Reference.SENTINEL:
                self._bench.baseline_over_reference()
            with self.baseline_offloaded(reference, [candidate for _, candidate in group]):
                runs = [(candidate.workload, self._pool.runner(candidate)) for _, candidate in group]
                measurements |= dict(zip((index for index, _ in group), self._bench.confirm(runs, reference)))
        return [ran for _, ran in sorted(measurements.items())]

    def _together(self, candidates: Sequence[Candidate]) -> tuple[int, Reference]:
        """Return how many of the first candidates fit into memory at once, by prediction, and beside what reference.

        It is at least one.
        """
        reference = self.reference(candidates[0], self._pool.shapes(candidates[0])) or Reference.BASELINE
        if reference is Reference.SENTINEL and self._parkable():
            return 1, reference
        free, weights, run = self._problem.device.free_memory(), dict[Recipe, int](), 0
        for count, candidate in enumerate(candidates):
            if isinstance(candidate.workload, Loading) and count == MOST_SERVERS - 1:  # and that of the baseline
                return count, reference
            shapes = self._pool.shapes(candidate)
            if shapes is None:
                continue
            recipe = recipe_of(candidate)
            weights[recipe] = 0 if self._pool.is_built(candidate) else shapes.weights
            run = max(run, shapes.peak - shapes.weights)
            if count and sum(weights.values()) + run > free:
                return count, reference
        return len(candidates), reference

    def baseline_over_reference(self) -> None:
        """Measure the baseline beside the sentinel, once, while the baseline is on the device."""
        self._bench.baseline_over_reference()

    def run(
        self,
        candidate: Candidate,
        reference: Reference | None,
        shapes: Footprint | None,
        weights: Mapping[str, float],
        stop_below: float | None = None,
    ) -> Measurement:
        """Time and weigh the running model; ``weights``: its byte metrics; ``stop_below``: see :meth:`Bench.run`."""
        model, is_dense = self._pool.runner(candidate), self._pool.is_dense(candidate)
        limit = None if is_dense else stop_below  # the dense model is what others are compared with
        ran = self._ran(candidate.workload, model, reference, shapes, weights, limit)
        metrics, workload = dict(ran.metrics), candidate.workload
        facts, notes = ran.facts, list(ran.notes)
        if not isinstance(workload, Loading):  # a burst is no request
            metrics["latency_ratio"] = workload.items / self._problem.baseline.workload.items / metrics["speedup"]
        if is_dense:
            self._note_dense(workload, metrics, reference)
        dense_shapes = self._pool.shapes(replace(self._problem.baseline, workload=workload))
        if shapes is not None and dense_shapes is not None:
            metrics |= promises(shapes, dense_shapes, workload, self._peaks)
        baseline_offloaded = reference is Reference.SENTINEL and bool(self._parkable())
        not_now = is_dense or baseline_offloaded
        dense = self._dense.get(workload) if not_now else self._dense_metrics(workload, dense_shapes)
        if dense is not None:
            metrics |= dense_gains(metrics) if is_dense else gains(metrics, dense)
            if dense["contended"] and not is_dense:
                notes.append(_BUSY_DENSE)
            own = self._own_reference(candidate, reference)
            if own is not None:
                metrics |= own_gains(metrics, own.metrics)
                if candidate.runtime.is_torch:  # what recording or compiling gains is not compression's
                    metrics |= compared_with_own(metrics, own.metrics)
                if own.metrics["contended"]:
                    notes.append(_BUSY_OWN)
            if not is_dense:
                gained = judged(metrics, model, max(workload.tokens_read, workload.batch_size))
                facts = replace(facts, gains=gained)
        return replace(ran, metrics=metrics, facts=facts, notes=tuple(notes))

    def _ran(
        self,
        workload: Workload,
        model: Runner,
        reference: Reference | None,
        shapes: Footprint | None,
        weights: Mapping[str, float],
        stop_below: float | None = None,
    ) -> Measurement:
        ran = self._bench.run(workload, model, reference, shapes, stop_below)
        metrics = {**weights, **ran.metrics}
        metrics["peak_memory"] = metrics["weight_bytes"] + metrics["activation_peak"]
        if shapes is not None:
            metrics["predicted_peak"] = float(shapes.peak)
        return replace(ran, metrics=metrics)

    def _note_dense(self, workload: Workload, metrics: Mapping[str, float], reference: Reference | None) -> None:
        known = self._dense.get(workload)
        if known is None or known["contended"] >= metrics["contended"]:  # the baseline is 1 by definition
            self._dense[workload] = {**metrics, "speedup.error": 0.0} if reference is None else metrics

    def _dense_metrics(self, workload: Workload, shapes: Footprint | None) -> Mapping[str, float] | None:
        """Return the metrics of the dense model at ``workload``; None where it does not fit.

        It is measured up to ``DENSE_TRIES`` times until the machine is calm.
        """
        known = self._dense.get(workload)
        tries = self._dense_tries.get(workload, 0)
        if known is None or (known["contended"] and tries < DENSE_TRIES):
            self._dense_tries[workload] = tries + 1
            if shapes is not None and shapes.peak - shapes.weights > self._problem.device.free_memory():
                return known
            dense = replace(self._problem.baseline, workload=workload)
            reference: Reference | None = None if dense == self._problem.baseline else Reference.BASELINE
            runner = self._pool.reference_runner
            weights = runner.weights(block_weights(self._pool.source))
            ran = self._ran(workload, runner, reference, None, weights)
            self._note_dense(workload, ran.metrics, reference)
        return self._dense[workload]

    def _own_reference(self, candidate: Candidate, reference: Reference | None) -> Measurement | None:
        """Return the timing of the dense model in the candidate's runtime, at its workload.

        The dense model is in 32 bits there; in a runtime of torch it is stored as the baseline is. It is timed up to
        ``DENSE_TRIES`` times until the machine is calm. None for the baseline's own runtime, and for one that cannot
        run the dense model.
        """
        runtime, baseline = candidate.runtime, self._problem.baseline
        if runtime == baseline.runtime:
            return None
        quantization = baseline.quantization if runtime.is_torch else REFERENCE
        own = replace(baseline, quantization=quantization, workload=candidate.workload, runtime=runtime)
        if own.runtime.supports(own, self._problem.model.head, self._problem.device) is not None:
            return None
        key = (runtime, candidate.workload)
        known, tries = self._own.get(key), self._own_tries.get(key, 0)
        if known is None or (known.metrics["contended"] and tries < DENSE_TRIES):
            self._own_tries[key] = tries + 1
            try:
                runs = [(candidate.workload, self._pool.runner(own))]
            except (Unsupported, ProcessLost):  # what was measured of the candidate stands all the same
                return None
            ran = self._bench.confirm(runs, reference or Reference.BASELINE)[0]
            if known is None or known.metrics["contended"] >= ran.metrics["contended"]:
                self._own[key] = ran
        return self._own[key]

    def reference(self, candidate: Candidate, shapes: Footprint | None) -> Reference | None:
        """Return what a candidate is timed beside; None for the baseline itself.

        Raises DoesNotFit where memory cannot hold the candidate, even with the baseline offloaded.
        """
        if candidate == self._problem.baseline:
            return None
        setting = self._problem.timing.reference
        is_built, shares = self._pool.is_built(candidate), self._pool.is_the_baseline(candidate)
        needed = 0 if shapes is None else shapes.peak - (shapes.weights if is_built else 0)
        free = self._problem.device.free_memory()
        others = (self._pool.built or self._pool.engines) and (shares or not is_built)
        if needed > free and others:  # of what we hold ourselves
            self._pool.forget()
            gc.collect()
            free = self._problem.device.free_memory()
        if needed <= free:
            return Reference.BASELINE if setting == "auto" else Reference(setting)
        room = free + (0 if setting == "baseline" or shares else self._parkable())
        if needed > room:
            assert shapes is not None
            raise DoesNotFit(shapes.peak, room + shapes.peak - needed)
        return Reference.SENTINEL

    def _parkable(self) -> int:
        """Return the bytes of the device's own memory that offloading the baseline frees."""
        return stored_bytes([self._pool.baseline.module]) if self._problem.device.parks else 0

    @contextmanager
    def baseline_offloaded(self, reference: Reference | None, candidates: Sequence[Candidate]) -> Iterator[None]:
        """Keep the baseline out of the device's memory while ``candidates`` run beside the sentinel.

        It stays where one of them runs its tensors, and where offloading frees nothing.
        """
        shared = any(self._pool.is_the_baseline(candidate) for candidate in candidates)
        away = reference is Reference.SENTINEL and bool(self._parkable()) and not shared
        module = self._pool.baseline.module
        home = module.device
        if away:
            self._pool.engines.clear()  # recorded passes read the addresses at which the weights were
            module.to("cpu")
        try:
            yield
        finally:
            if away:
                module.to(home)
