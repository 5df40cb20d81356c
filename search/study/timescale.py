"""Puts the times of all trials on one scale: that of the baseline over the whole study.

A machine is faster in one minute than in another, by more than candidates differ. Every trial ran in turns with the
baseline. The seconds that the baseline took then, divided by those it took in the calmer trials, say how fast the
machine was, and times are corrected by that factor. Throughput is the baseline's throughput times the paired speed-up.
Raw samples are not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from objectives.metrics import at_pace
from search.front.front import baseline_of
from search.records.trial import TrialRecord

CALM = 0.25
"""The quantile of the baseline's latencies that counts as calm: a disturbance of the machine only adds to them."""


@dataclass(frozen=True)
class TimeScale:
    """The baseline's speed in calm trials: ``pace``: its latency in seconds, and ``throughput``, its items/s."""

    pace: float
    throughput: float

    def __call__(self, record: TrialRecord) -> TrialRecord:
        """Return ``record`` with the times that it would have had at that pace.

        The times of a trial that ran beside a sentinel stay: they say nothing about the baseline's pace.
        """
        if "speedup" not in record.metrics:
            return record
        metrics = at_pace(record.metrics, record.facts.timing, self.pace)
        return replace(record, metrics={**metrics, "throughput": self.throughput * record.metrics["speedup"]})


def time_scale_of(trials: Sequence[TrialRecord]) -> TimeScale | None:
    """Return the time scale of ``trials``, each of them timed by itself; None where nothing was timed.

    Timings in shared rounds must not be among them: they saw the machine once, but would count once per member.
    """
    baseline = baseline_of(trials)
    if baseline is None or "reference_latency" not in baseline.metrics:
        return None
    timed = [record for record in trials if _is_beside_baseline(record) and record.cached_from is None]
    pace = float(np.quantile([record.metrics["reference_latency"] for record in timed], CALM))
    return TimeScale(pace, baseline.metrics["throughput"] * baseline.metrics["reference_latency"] / pace)


def _is_beside_baseline(record: TrialRecord) -> bool:
    return record.facts.timing is not None and record.facts.timing.is_beside_baseline


def on_time_scale(records: Sequence[TrialRecord], scale: TimeScale | None) -> list[TrialRecord]:
    """Return the records with the times that they would have on ``scale``; None leaves them as they are."""
    return list(records) if scale is None else list(map(scale, records))
