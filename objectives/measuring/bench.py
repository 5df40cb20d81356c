"""Measures a model that is ready to run: its speed beside the baseline, its memory, its share of the device's limits.

The baseline takes turns with every model: its latency over the first one measured here is the drift. Where memory
cannot hold both, a small fixed workload, the *sentinel*, takes its place, and the baseline's own ratio to it is
measured once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter

from objectives.measuring.energy import EnergyMeter, find_meter
from objectives.measuring.estimate import Estimate
from objectives.measuring.footprint import Footprint
from objectives.measuring.interleaved import Interleaved, Sampled, summarise
from objectives.measuring.load import overload, samples_of
from objectives.measuring.pace import MachineSpeed
from objectives.measuring.roofline import limit
from objectives.protocols.readings import Peaks
from objectives.protocols.running import Device, Runner, Workload
from objectives.protocols.serving import Loading, LoadTiming
from objectives.types import Facts, Measurement, Note, NoteCode, Phase, Reference, Stop, Timing, TimingFacts
from objectives.workloads.reference import ReferenceWorkload

ENERGY_SECONDS = 1.0
"""The seconds that a model runs for its energy: counters of GPUs are renewed ten times a second."""

DRIFTED = 1.25
"""The change of the reference's speed, from its first, that needs no remark."""


class Bench:
    """Runs models on one device, beside ``baseline``, which runs ``workload``."""

    def __init__(self, device: Device, timing: Interleaved, baseline: Runner, workload: Workload, peaks: Peaks) -> None:
        self._device, self._timing, self._peaks = device, timing, peaks
        self._references: dict[Reference, Callable[[], Timing]] = {
            Reference.BASELINE: self.timed(workload, baseline),
            Reference.SENTINEL: self.timed(ReferenceWorkload(baseline.device), baseline),
        }
        self._pace = MachineSpeed(self.timed(ReferenceWorkload(baseline.device, size=512), baseline), timing.seconds)
        self._first: dict[str, float] = {}
        self._baseline_over_sentinel: Estimate | None = None
        self._meter: EnergyMeter | None = find_meter(device.energy())

    def timed(self, workload: Workload, model: Runner) -> Callable[[], Timing]:
        """Return a function that runs ``workload`` on ``model`` and returns how long that took."""

        def run() -> Timing:
            watch = self._device.stopwatch()
            if isinstance(workload, Loading):
                return workload.timed(model, watch)
            workload.run(model, watch)
            return watch.timing(workload.items)

        return run

    def run(
        self,
        workload: Workload,
        model: Runner,
        reference: Reference | None,
        shapes: Footprint | None,
        stop_below: float | None = None,
    ) -> Measurement:
        """Measure ``model``; without ``reference`` it is the baseline itself.

        ``shapes``: the predicted memory and work. ``stop_below``: timing stops once the speed-up is surely below it.
        """
        run = self.timed(workload, model)
        turns = [run] if reference is None else [self._references[reference], run]
        sampled = self._timing.time(turns, self._pace, stop_below if reference is Reference.BASELINE else None)
        metrics = self._speeds(workload, sampled, 0 if reference is None else 1, reference)
        metrics |= self._memory(workload, model)
        metrics |= self._shares(sampled.timings[-1], shapes)
        metrics |= {} if sampled.stopped is Stop.BEHIND else self._energy(run, workload)
        return self._ran(sampled, -1, reference, metrics)

    def confirm(self, runs: Sequence[tuple[Workload, Runner]], reference: Reference) -> list[Measurement]:
        """Time several models against each other and ``reference``, in shared rounds; speed only."""
        timing = self._timing.for_many(len(runs))
        sampled = timing.time([self._references[reference], *(self.timed(*run) for run in runs)], self._pace)
        measurements = []
        for place, (workload, _) in enumerate(runs, start=1):
            metrics = self._speeds(workload, sampled, place, reference)
            measurements.append(self._ran(sampled, place, reference, metrics))
        return measurements

    def baseline_over_reference(self) -> Estimate:
        """Return the baseline's throughput over the sentinel's, measured once; the baseline must be on the device."""
        if self._baseline_over_sentinel is None:
            sampled = self._timing.time(
                [self._references[Reference.SENTINEL], self._references[Reference.BASELINE]], self._pace
            )
            self._baseline_over_sentinel = sampled.estimates[1]
        return self._baseline_over_sentinel

    def _speeds(
        self, workload: Workload, sampled: Sampled, place: int, reference: Reference | None
    ) -> dict[str, float]:
        """Return the speed metrics of the run at ``place``, and the conditions under which it ran."""
        metrics = {**summarise(sampled.timings[place], workload), **self._speed(sampled.estimates[place], reference)}
        metrics |= {**sampled.conditions, **self._device.conditions()}
        if metrics.get("throttled") or metrics.get("other_processes"):
            metrics["contended"] = 1.0
        return metrics | self._drift(sampled.timings[0], reference or Reference.BASELINE)

    def _speed(self, ratio: Estimate, reference: Reference | None) -> dict[str, float]:
        if reference is None:  # the baseline itself: its ratio is 1, and only the error of its latency is measured
            return {"speedup": 1.0, "speedup.low": 1.0, "speedup.high": 1.0, "speedup.error": ratio.error}
        if reference is Reference.SENTINEL:
            ratio = ratio.over(self.baseline_over_reference())
        return {
            "speedup": ratio.value, "speedup.low": ratio.low, "speedup.high": ratio.high, "speedup.error": ratio.error,
        }  # fmt: skip

    def _ran(
        self, sampled: Sampled, place: int, reference: Reference | None, metrics: Mapping[str, float]
    ) -> Measurement:
        timing = sampled.timings[place]
        samples = {name: getattr(timing, name) for name in ("latency", "cpu", "encode", "ttft", "tpot")}
        notes = self._notes(metrics, sampled)
        if isinstance(timing, LoadTiming):
            samples |= samples_of(timing)
            notes += overload(timing)
        return Measurement(
            metrics,
            {**{name: values for name, values in samples.items() if values}, "speedup": sampled.ratios[place]},
            tuple(notes),
            Facts(TimingFacts(sampled.stopped, reference or Reference.ITSELF, self._timing.clock)),
        )

    def _drift(self, timing: Timing, name: str) -> dict[str, float]:
        latency = median(timing.latency)
        return {"reference_latency": latency, "drift": latency / self._first.setdefault(name, latency)}

    def _memory(self, workload: Workload, model: Runner) -> dict[str, float]:
        memory = model.memory(workload, self._device)
        peaks = {f"activation_peak.{phase}": float(peak) for phase, peak in memory.peaks.items()}
        metrics = {"activation_peak": float(memory.peak), **(peaks if len(peaks) > 1 else {}), **memory.extra}
        return {**metrics, "cache_bytes": float(memory.cache)} if memory.cache else metrics

    def _shares(self, timing: Timing, shapes: Footprint | None) -> dict[str, float]:
        """Return the share of the device's limit that each phase reaches, with its predicted work."""
        if shapes is None:
            return {}
        seconds = phase_seconds(timing)
        return {
            f"roofline.{phase}": limit(work, self._peaks)[0] / seconds[phase] for phase, work in shapes.work.items()
        }

    def _energy(self, run: Callable[[], Timing], workload: Workload) -> dict[str, float]:
        """Measure the joules per item; empty where no counter answers, or where the difference means nothing."""
        if self._meter is None:
            return {}
        start, began, count = self._meter.read(), perf_counter(), 0
        while perf_counter() - began < ENERGY_SECONDS:
            run()
            count += 1
        joules = self._meter.since(start)
        if joules is None or not self._meter.meaningful(joules, perf_counter() - began):
            return {}
        return {"energy": joules / (count * workload.items)}

    def _notes(self, metrics: Mapping[str, float], sampled: Sampled) -> list[Note]:
        notes = []
        if sampled.contended:
            text = (
                f"contended: threads waited {metrics['wait']:.0%} of the time, a fixed matrix product took "
                f"{metrics['slowdown']:.2f}x as long as at best"
            )
            notes.append(Note(NoteCode.CONTENDED, text))
        if self._timing.clock == "cpu" and metrics["wait"] > self._timing.strain:
            text = f"threads waited {metrics['wait']:.0%} of the time: latencies are by the wall clock"
            notes.append(Note(NoteCode.WAITED, text))
        notes += _on_precision(metrics["speedup.error"], sampled.stopped, self._timing.precision)
        if not 1 / DRIFTED < metrics["drift"] < DRIFTED:
            text = f"drifted: the reference takes {metrics['drift']:.2f}x as long as at first, ratios are not affected"
            notes.append(Note(NoteCode.DRIFTED, text))
        if metrics.get("throttled"):
            notes.append(Note(NoteCode.THROTTLED, "the GPU lowered its clocks for heat or power"))
        if metrics.get("other_processes"):
            text = f"{metrics['other_processes']:.0f} other processes computed on the GPU"
            notes.append(Note(NoteCode.SHARED_GPU, text))
        return notes


def _on_precision(error: float, stopped: Stop, wanted: float) -> list[Note]:
    """Return a note where the speed is known less precisely than ``wanted``, or where timing was cut short."""
    if stopped is Stop.BEHIND:
        return [Note(NoteCode.IMPRECISE, f"speed known to {error:.1%} only: timing stopped, since it is dominated")]
    spent = f"speed known to {error:.1%} only: timing.max_{stopped} reached"
    return [Note(NoteCode.IMPRECISE, spent)] if error > wanted else []


def phase_seconds(timing: Timing) -> dict[Phase, float]:
    """Return the median seconds of one lap of each phase."""
    seconds: dict[Phase, float] = {}
    if timing.encode:
        seconds["encode"] = median(timing.encode)
    if timing.ttft:
        seconds["prefill"] = median(timing.ttft) - seconds.get("encode", 0.0)
    if timing.tpot:
        seconds["decode"] = median(timing.tpot)
    return seconds
