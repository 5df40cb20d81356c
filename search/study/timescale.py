"""Times of all trials on one scale: that of the baseline over the whole study.

A machine is faster in one minute than in another, by more than candidates differ. Every trial ran in turns with the
baseline, so what the baseline took then, over what it took in the calmer trials, says how fast the machine was: times
are corrected by that factor. Throughput is the baseline's times the paired speed-up. Raw samples stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from objectives.metrics import at_pace
from search.front.front import baseline_of
from search.records.trial import TrialRecord

CALM = 0.25
"""The quantile of the baseline's latencies that counts as its own: what disturbs a machine only adds to it."""


@dataclass(frozen=True)
class TimeScale:
    """``pace``: seconds that the baseline takes in calm trials, and ``throughput`` that it has then."""

    pace: float
    throughput: float

    def __call__(self, record: TrialRecord) -> TrialRecord:
        """``record`` as it would have been at that pace.

        What ran beside a sentinel says nothing about the baseline's pace: its times stay as they are.
        """
        if "speedup" not in record.metrics:
            return record
        metrics = at_pace(record.metrics, record.facts.timing, self.pace)
        return replace(record, metrics={**metrics, "throughput": self.throughput * record.metrics["speedup"]})


def time_scale_of(trials: Sequence[TrialRecord]) -> TimeScale | None:
    """As far as ``trials`` tell it, each timed by itself: members of a front that were timed again in shared rounds
    saw the machine once, and would vote once each. None where nothing was timed.
    """
    baseline = baseline_of(trials)
    if baseline is None or "reference_latency" not in baseline.metrics:
        return None
    own = [record for record in trials if _is_beside_baseline(record) and record.cached_from is None]
    pace = float(np.quantile([record.metrics["reference_latency"] for record in own], CALM))
    return TimeScale(pace, baseline.metrics["throughput"] * baseline.metrics["latency.p50"] / pace)


def _is_beside_baseline(record: TrialRecord) -> bool:
    return record.facts.timing is not None and record.facts.timing.is_beside_baseline


def on_time_scale(records: Sequence[TrialRecord], scale: TimeScale | None) -> list[TrialRecord]:
    """The records with times as they would be at that pace."""
    return list(records) if scale is None else list(map(scale, records))
