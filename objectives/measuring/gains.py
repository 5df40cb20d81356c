"""Gains of compression, of a runtime and of a batch size, each with its interval and a typed verdict.

The ratio of two speed-ups that were paired with the same baseline compares two models that never ran side by side. Both
are estimates of their own, so their relative errors add up in squares (:meth:`Estimate.over`). Free of torch: reports
read what is stored here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from objectives.measuring.estimate import Estimate
from objectives.types import Size, Speed

Metrics = Mapping[str, float]

EXACT = Estimate(1.0, 1.0, 1.0)
"""The gain of a model over itself."""
SMALLER = 0.99
"""Memory ratio above which there is no saving: memory repeats to the byte, but nobody would notice a hundredth."""


def noted(name: str, found: Estimate) -> dict[str, float]:
    """Return the metrics that hold a ratio with its interval."""
    return {name: found.value, f"{name}.low": found.low, f"{name}.high": found.high, f"{name}.error": found.error}


def ratio_of(metrics: Metrics, name: str) -> Estimate | None:
    """Return the ratio that :func:`noted` stored, None where there is none.

    Studies from before 2026-11-28 hold only half of the interval; without that the interval is infinite.
    """
    value = metrics.get(name)
    if value is None:
        return None
    if f"{name}.low" in metrics and f"{name}.high" in metrics:
        return Estimate(value, metrics[f"{name}.low"], metrics[f"{name}.high"])
    error = metrics.get(f"{name}.error", math.inf)
    return Estimate(value, value * max(0.0, 1 - error), value * (1 + error))


def gains(ran: Metrics, dense: Metrics) -> dict[str, float]:
    """Return the realised ratios over the dense model at the same workload; both arguments are metrics."""
    compressed, full = _speedup(ran), _speedup(dense)
    return {
        **noted("compression_speedup", compressed.over(full)),
        **noted("batching_speedup", full),
        **noted("dense_speedup", full),
        "dense_contended": dense.get("contended", 0.0),
        "compression_memory_ratio": ran["peak_memory"] / dense["peak_memory"],
        "weight_ratio": ran["weight_bytes"] / dense["weight_bytes"],
    }


def dense_gains(ran: Metrics) -> dict[str, float]:
    """Return :func:`gains` for the dense model itself: compression gains nothing, the batch size everything."""
    return {**gains(ran, ran), **noted("compression_speedup", EXACT)}


def own_gains(ran: Metrics, own: Metrics) -> dict[str, float]:
    """Return the gain of the runtime, and that of pruning and bits in it; ``own``: metrics of its dense model."""
    full = _speedup(own)
    return {**noted("runtime_speedup", full), **noted("own_speedup", _speedup(ran).over(full))}


def compared_with_own(metrics: Metrics, own: Metrics) -> dict[str, float]:
    """Return compression's gain over the runtime's own dense model, so that the runtime's gain is left out of it."""
    full = _speedup(own)
    return {
        **noted("compression_speedup", _speedup(metrics).over(full)),
        **noted("dense_speedup", full),
        "dense_contended": own.get("contended", 0.0),
    }


def dense_speedup(metrics: Metrics) -> Estimate | None:
    """Return the speed-up of the dense model that ``compression_speedup`` compares with, None where there is none.

    Studies from before 2026-11-28 do not hold it; it follows from the two speed-ups, whose errors were simply added.
    """
    stored = ratio_of(metrics, "dense_speedup")
    compression, speedup = metrics.get("compression_speedup"), metrics.get("speedup")
    if stored is not None or not compression or speedup is None:
        return stored
    both, one = metrics.get("compression_speedup.error", math.inf), metrics.get("speedup.error", 0.0)
    error = math.inf if math.isinf(both) else max(0.0, both - one)
    return ratio_of({"dense": speedup / compression, "dense.error": error}, "dense")


def batching_speedup(metrics: Metrics) -> Estimate | None:
    """Return the speed-up of the baseline's own model at this batch size, None where it was not measured."""
    stored = ratio_of(metrics, "batching_speedup")
    if stored is None and metrics.get("own_speedup") != metrics.get("compression_speedup"):
        return dense_speedup(metrics)
    return stored


def regained(before: Metrics, speedup: Estimate) -> dict[str, float]:
    """Return the gains of ``before`` for another measurement of the speed-up; gains that it lacks stay absent."""
    metrics: dict[str, float] = {}
    for name, full in (
        ("compression_speedup", dense_speedup(before)),
        ("own_speedup", ratio_of(before, "runtime_speedup")),
    ):
        if full is not None:
            metrics |= noted(name, speedup.over(full))
    if "latency_ratio" in before:
        metrics["latency_ratio"] = before["latency_ratio"] * before["speedup"] / speedup.value
    return {name: value for name, value in metrics.items() if name in before}


def speed_of(metrics: Metrics) -> Speed | None:
    """Return whether a trial is faster than the dense model at its batch size; None if nobody compared."""
    ratio = ratio_of(metrics, "compression_speedup")
    if ratio is None:
        return None
    return Speed.FASTER if ratio.low > 1 else Speed.SLOWER if ratio.high < 1 else Speed.EQUAL


def size_of(metrics: Metrics) -> Size | None:
    """Return whether a trial needs less memory than the dense model at its batch size; None if nobody compared."""
    ratio = metrics.get("compression_memory_ratio")
    if ratio is None:
        return None
    return Size.SMALLER if ratio < SMALLER else Size.LARGER if ratio > 1 / SMALLER else Size.EQUAL


def _speedup(metrics: Metrics) -> Estimate:
    speedup = ratio_of(metrics, "speedup")
    assert speedup is not None
    return speedup
