"""Computes what the recommended candidate gains by compression, by its runtime and by its batch size.

A speed-up over the baseline alone flatters compression, since the baseline runs at the first batch size and in torch.
So compression is compared with the dense model at the same batch size and in the same runtime, and the gains by batch
size and by runtime stand beside it. Everything here is a number or a type; :mod:`search.reporting.sentences` has the
words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from objectives.measuring.estimate import Estimate
from objectives.measuring.gains import batching_speedup, ratio_of, size_of
from objectives.types import Decision, Size, Speed, Stop, Verdict
from search.front.asked import Asked, asked_of, named_metric
from search.front.feasibility import Certainty, certainty
from search.front.front import ParetoFront, baseline_of
from search.front.realised_gain import speed_gain
from search.front.table import batch_of
from search.records.trial import TrialRecord, Value

_TOLD = (
    "examples", "accuracy_replicates", "accuracy_difference", "accuracy_difference.low", "accuracy_difference.high",
)  # fmt: skip
"""The metrics that a report tells of an accuracy besides its value."""
FIRM = 0.2
"""The largest half-width of an interval, relative, at which a gain is shown as one figure; a wider one is a range."""


class Limit(StrEnum):
    """The reason why an interval is no narrower."""

    BUSY = "busy"
    SECONDS = "seconds"
    ROUNDS = "rounds"
    BRIEF = "behind"


_LIMITS = {Stop.SECONDS: Limit.SECONDS, Stop.ROUNDS: Limit.ROUNDS, Stop.BEHIND: Limit.BRIEF}


@dataclass(frozen=True)
class Gain:
    """A ratio with its 95 % interval; ``limits``: why that is no narrower, as far as is known."""

    value: float
    low: float
    high: float
    limits: tuple[Limit, ...] = ()

    @property
    def error(self) -> float:
        """Return half the width of the interval, relative to the value."""
        return (self.high - self.low) / 2 / self.value

    @property
    def is_exact(self) -> bool:
        """Return whether it is 1 by definition: a model held against itself."""
        return self.low == self.value == self.high == 1.0

    @property
    def is_firm(self) -> bool:
        """Return whether the interval is narrow enough, and away from 1, for the value to be named by itself."""
        return self.error <= FIRM and self.is_told_apart

    @property
    def is_above(self) -> bool:
        """Return whether the whole interval lies above 1."""
        return self.low > 1

    @property
    def is_below(self) -> bool:
        """Return whether the whole interval lies below 1."""
        return self.high < 1

    @property
    def is_told_apart(self) -> bool:
        """Return whether the interval leaves 1 out."""
        return self.is_above or self.is_below


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of the recommended candidate.

    ``difference``: to the baseline's, with its interval, where both were scored on the same examples in full.
    ``replicates``: of a metric of all examples together, 0 where it has none; None where the mean example gives it.
    """

    value: float
    floor: float
    certainty: Certainty
    exact: bool
    examples: int | None = None
    difference: tuple[float, float, float] | None = None
    stderr: float = math.nan
    replicates: int | None = None


@dataclass(frozen=True)
class Headline:
    """The gains of the recommended ``trial``. Gains that were not measured are None.

    ``compression``: speed over the dense model at the same batch size, and in the same runtime where ``runtime`` is
    known. ``runtime``: the dense model's speed in this runtime over torch. ``batching``: the dense model's speed at
    this batch size over the baseline. ``together``: speed over the baseline. ``latency``: of a request, over the
    baseline's. ``speed``: the verdict on its speed compared with the dense model in torch at its batch size; the
    recommendation uses it. Memory ratios: ``compression_memory`` over that dense model, ``memory`` over the baseline.
    ``tasks``: the accuracies of several tasks, by name; then ``accuracy`` is that of their mean.
    """

    trial: int
    is_baseline: bool
    batch_size: Value
    baseline_batch_size: Value
    compression: Gain | None
    runtime: Gain | None
    batching: Gain | None
    together: Gain | None
    latency: Gain | None
    speed: Speed | None
    size: Size | None
    compression_memory: float | None
    memory: float | None
    accuracy: Accuracy
    tasks: Mapping[str, Accuracy] = field(default_factory=dict)

    @property
    def is_like_the_baseline(self) -> bool:
        """Return whether the dense model that it is compared with is the baseline as it ran."""
        return self.runtime is None and self.batching is not None and self.batching.is_exact


def headline_of(
    records: Sequence[TrialRecord], front: ParetoFront, fixed: Mapping[str, Value] | None = None
) -> Headline | None:
    """Return what the recommended candidate gains; None without a recommendation.

    ``fixed``: values, by dotted path, of variables that were not searched.
    """
    baseline = baseline_of(records)
    best = next((record for record in records if record.number == front.recommended), None)
    if best is None or baseline is None:
        return None
    metrics, limits = best.metrics, _limits(best)
    batching, runtime = batching_speedup(metrics), ratio_of(metrics, "runtime_speedup")
    compression = ratio_of(metrics, "compression_speedup" if runtime is None else "own_speedup")
    over = None if runtime is None or batching is None else runtime.over(batching)
    of_dense = (Limit.BUSY,) if metrics.get("dense_contended") else ()
    return Headline(
        trial=best.number,
        is_baseline=best.is_baseline,
        batch_size=batch_of({**(fixed or {}), **best.params}),
        baseline_batch_size=batch_of({**(fixed or {}), **baseline.params}),
        compression=_gain(compression, dict.fromkeys((*limits, *of_dense))),
        runtime=_gain(over, of_dense),
        batching=_gain(batching, of_dense),
        together=_gain(ratio_of(metrics, "speedup"), limits),
        latency=_latency(metrics, baseline.metrics, limits),
        speed=speed_gain(best),
        size=size_of(metrics),
        compression_memory=metrics.get("compression_memory_ratio"),
        memory=_quotient(metrics, baseline.metrics, "peak_memory"),
        accuracy=_accuracy(best, _overall(best, front.floor)),
        tasks={each.task: _accuracy(best, each) for each in asked_of(best, front.floor) if each.task},
    )


def numbers(headline: Headline) -> dict[str, float]:
    """Return the gains as metrics of the study, ``headline.compression.low`` and the like."""
    gains = {
        name: getattr(headline, name) for name in ("compression", "runtime", "batching", "together", "latency")
    }  # fmt: skip
    found: dict[str, float] = {}
    for name, gain in gains.items():
        if gain is not None:
            found[f"headline.{name}"] = gain.value
            if math.isfinite(gain.high):
                found |= {f"headline.{name}.low": gain.low, f"headline.{name}.high": gain.high}
    return found


def _gain(found: Estimate | None, limits: Sequence[Limit] | Mapping[Limit, None]) -> Gain | None:
    return None if found is None else Gain(found.value, found.low, found.high, tuple(limits))


def _limits(record: TrialRecord) -> tuple[Limit, ...]:
    """Return what kept the trial's own timing from a narrower interval."""
    busy = (Limit.BUSY,) if record.metrics.get("contended") else ()
    timing = record.facts.timing
    limit = None if timing is None else _LIMITS.get(timing.stopped)
    return busy if limit is None else (*busy, limit)


def _latency(metrics: Mapping[str, float], baseline: Mapping[str, float], limits: Sequence[Limit]) -> Gain | None:
    """Return the latency over the baseline's: by the paired speed-up, else by both medians, without an interval."""
    speedup, found = ratio_of(metrics, "speedup"), metrics.get("latency_ratio")
    if found is None or speedup is None or not speedup.low > 0:
        plain = found or _quotient(metrics, baseline, "latency.p50")
        return None if plain is None else Gain(plain, 0.0, math.inf, tuple(limits))
    return Gain(found, found * speedup.value / speedup.high, found * speedup.value / speedup.low, tuple(limits))


def _overall(record: TrialRecord, floor: float) -> Asked:
    """Return what is asked of the accuracy itself; of the mean of several tasks it may be nothing."""
    own = next((each for each in asked_of(record, floor) if not each.task), None)
    exact = Verdict(Decision.REACHED)
    return own or Asked("", record.metrics["accuracy"], record.metrics["accuracy_stderr"], floor, exact)


def _accuracy(record: TrialRecord, asked: Asked) -> Accuracy:
    metrics = {name: record.metrics.get(named_metric(name, asked.task)) for name in _TOLD}
    examples, replicates = metrics["examples"], metrics["accuracy_replicates"]
    ends = [metrics[f"accuracy_difference{end}"] for end in ("", ".low", ".high")]
    difference = None if None in ends or record.is_baseline else (ends[0], ends[1], ends[2])
    return Accuracy(
        value=asked.value,
        floor=asked.floor,
        certainty=certainty(asked),
        exact=asked.verdict.method == "exact",
        examples=None if examples is None else int(examples),
        difference=difference,  # type: ignore[arg-type]
        stderr=asked.stderr,
        replicates=None if replicates is None else int(replicates),
    )


def _quotient(metrics: Mapping[str, float], start: Mapping[str, float], name: str) -> float | None:
    return metrics[name] / start[name] if name in metrics and start.get(name) else None
