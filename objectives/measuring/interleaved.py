"""Timing a candidate and the baseline in turns, in one process.

Whatever disturbs the machine disturbs both, so the ratio of two neighbouring runs is far steadier than the
ratio of two separate blocks (coefficient of variation 3.7 % against 8-25 % on a busy two-core machine). Rounds
go on until the 95 % interval of the median ratio is narrow enough, or the budget is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID, Count, Natural, Positive
from objectives.types import Timing

Run = Callable[[], Timing]


@dataclass(frozen=True)
class Paired:
    """Timings of the candidate over all rounds, and its throughput over the reference's, one ratio a round."""

    timing: Timing
    ratios: tuple[float, ...]


@settings(frozen=True, kw_only=True, config=FORBID)
class Interleaved:
    """``warmups`` rounds are thrown away; then ``min_rounds`` to ``max_rounds``.

    It stops early once the half-width of the ratio's interval is below ``precision`` (relative), and late runs
    stop at ``max_seconds`` as soon as ``min_rounds`` are done.
    """

    warmups: Natural = 1
    min_rounds: Count = 5
    max_rounds: Count = 15
    max_seconds: Positive = 10.0
    precision: Positive = 0.02

    def __post_init__(self) -> None:
        """The least cannot be more than the most."""
        if self.min_rounds > self.max_rounds:
            raise ValueError(f"min_rounds must be <= max_rounds, got {self.min_rounds} and {self.max_rounds}")

    def time(self, candidate: Run, reference: Run | None) -> Paired:
        """Time ``candidate`` beside ``reference``; None when the candidate is the reference itself."""
        for _ in range(self.warmups):
            candidate()
            if reference is not None:
                reference()
        timings: list[Timing] = []
        ratios: list[float] = []
        start = perf_counter()
        while not self._enough(ratios, perf_counter() - start):
            timing = candidate()
            timings.append(timing)
            ratios.append(1.0 if reference is None else _rate(timing) / _rate(reference()))
        return Paired(merge(timings), tuple(ratios))

    def _enough(self, ratios: Sequence[float], seconds: float) -> bool:
        rounds = len(ratios)
        if rounds < self.min_rounds:
            return False
        if rounds >= self.max_rounds or seconds >= self.max_seconds:
            return True
        return len(set(ratios)) > 1 and half_width(ratios) <= self.precision


def _rate(timing: Timing) -> float:
    return timing.items / timing.latency[0]


def half_width(ratios: Sequence[float]) -> float:
    """Half the 95 % interval of the median, relative to it: 1.96 * 1.2533 * robust sigma / sqrt(n)."""
    values = np.asarray(ratios)
    median = float(np.median(values))
    sigma = 1.4826 * float(np.median(np.abs(values - median)))
    return float(1.96 * 1.2533 * sigma / np.sqrt(len(values)) / median)


def merge(timings: Sequence[Timing]) -> Timing:
    """All samples of repeated runs of one workload."""
    return Timing(
        latency=tuple(value for timing in timings for value in timing.latency),
        items=timings[0].items,
        ttft=tuple(value for timing in timings for value in timing.ttft),
        tpot=tuple(value for timing in timings for value in timing.tpot),
    )


def summarise(timing: Timing) -> dict[str, float]:
    """Metrics of :data:`objectives.types.METRICS` from raw timings; those that do not apply are absent."""
    latency = np.asarray(timing.latency)
    metrics = {f"latency.p{q}": float(np.percentile(latency, q)) for q in (50, 90, 95, 99)}
    metrics["latency.mean"] = float(latency.mean())
    metrics["throughput"] = timing.items / metrics["latency.p50"]
    if timing.ttft:
        metrics["ttft"] = float(np.median(timing.ttft))
    if timing.tpot:
        metrics["tpot"] = float(np.median(timing.tpot))
    return metrics
