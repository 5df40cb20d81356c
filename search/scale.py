"""Times of all trials on one scale: that of the baseline over the whole study.

A machine is faster in one minute than in another, by more than candidates differ. Every trial ran in turns with the
baseline, so what the baseline took then, over what it took in the calmer trials, says how fast the machine was: times
are corrected by that factor. Throughput is the baseline's times the paired speed-up. Raw samples stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from objectives.metrics import METRICS
from search.front import baseline_of
from search.records import TrialRecord

CALM = 0.25
"""The quantile of the baseline's latencies that counts as its own: what disturbs a machine only adds to it."""


def on_one_scale(records: Sequence[TrialRecord], trials: Sequence[TrialRecord] | None = None) -> list[TrialRecord]:
    """The records with times as they would be at the baseline's pace in calm trials.

    ``trials``: the same as each was timed by itself, where members of a front were timed again in shared rounds: these
    saw the machine once, and would vote once each.
    """
    baseline = baseline_of(records)
    if baseline is None or "reference_latency" not in baseline.metrics:
        return list(records)
    own = [record for record in trials or records if _beside_baseline(record) and record.cached_from is None]
    pace = float(np.quantile([record.metrics["reference_latency"] for record in own], CALM))
    items = baseline.metrics["throughput"] * baseline.metrics["latency.p50"]
    return [_scaled(record, pace, items / pace) if "speedup" in record.metrics else record for record in records]


def _beside_baseline(record: TrialRecord) -> bool:
    return record.facts.get("reference") in ("itself", "baseline")


def _scaled(record: TrialRecord, pace: float, throughput: float) -> TrialRecord:
    """What ran beside a sentinel says nothing about the baseline's pace: its times stay as they are."""
    factor = pace / record.metrics["reference_latency"] if _beside_baseline(record) else 1.0
    metrics = {name: _value(name, value, factor) for name, value in record.metrics.items()}
    return replace(record, metrics={**metrics, "throughput": throughput * record.metrics["speedup"]})


def _value(name: str, value: float, factor: float) -> float:
    if name.startswith("roofline."):
        return value / factor
    unit = METRICS[name].unit if name in METRICS else ""
    return value * factor if unit == "s" else value / factor if unit == "1/s" else value


def changed(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Metrics of ``after`` that are new or differ."""
    return {name: value for name, value in after.items() if before.get(name) != value}
