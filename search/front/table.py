"""Tabulates all trials as a pandas frame, one row per trial in base units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from objectives.measuring.stored_facts import texts_of
from objectives.metrics import METRICS
from search.front.front import ParetoFront, baseline_of
from search.front.realised_gain import not_realised, realised
from search.records.trial import TrialRecord, Value

if TYPE_CHECKING:
    import pandas as pd

RATIO, BITS, BATCH = "pruning.ratio", "quantization.bits", "workload.batch_size"
CONCURRENCY = "workload.concurrency"
"""The batch size of a load."""
MAIN = (RATIO, BITS, BATCH, CONCURRENCY)
_MEASURED = ("throughput", "latency.p50", "latency.p95", "ttft", "tpot", "peak_memory", "weight_bytes")
_FIRST = ("trial", "state", "reason", "pruning_ratio", "bits", "batch_size")
_FACTS = ("speed_gain", "memory_gain", "stopped", "reference", "clock")
_GAINS = ("realised_gain", "no_realised_gain")
_LAST = ("is_baseline", "cached_from", "confirmed", "seconds", "started", *_FACTS, *_GAINS, "message", "notes")


def batch_of(values: Mapping[str, Value]) -> Value:
    """Return the batch size among settings by dotted path, of a load its concurrency; None where neither is there."""
    return values.get(BATCH, values.get(CONCURRENCY))


def _column(metric: str) -> str:
    """Return the column of any measured quantity, also of those of single domains (``accuracy.news``)."""
    return metric.replace(".", "_")


def searched_columns(records: Sequence[TrialRecord]) -> dict[str, str]:
    """Return the column of every searched variable other than ratio, bits and batch size, by its dotted path."""
    taken = {*_FIRST, *_LAST, "feasible", "on_front", "recommended", "nominal_pruning_ratio"}
    taken.update(metric.column for metric in METRICS.values())
    paths = dict.fromkeys(path for record in records for path in record.params if path not in MAIN)
    plain = {path: path.replace(".", "_") for path in paths}
    return {path: f"param_{column}" if column in taken else column for path, column in plain.items()}


def frame(records: Sequence[TrialRecord], front: ParetoFront, fixed: Mapping[str, Value] | None = None) -> pd.DataFrame:
    """Return a frame with one row per trial, in base units; columns that do not apply are empty.

    ``fixed``: values, by dotted path, of variables that were not searched. ``pruning_ratio`` is the realised
    one, or the nominal one of a failed trial. ``speedup`` and ``memory_ratio`` are as measured (paired), or
    plain quotients with the baseline where the measurement has none.
    """
    import pandas as pd  # here, so that importing this module stays cheap

    baseline = baseline_of(records)
    searched = searched_columns(records)
    names = dict.fromkeys(name for record in records for name in record.metrics)
    further = [*(name for name in METRICS if name in names), *(name for name in names if name not in METRICS)]
    rows = [_row(record, front, {**(fixed or {}), **record.params}, baseline) for record in records]
    for row, record in zip(rows, records):
        row.update({_column(name): record.metrics.get(name, row.get(_column(name))) for name in further})
        row.update({column: record.params.get(path) for path, column in searched.items()})
    order = dict.fromkeys((
        *_FIRST, *(METRICS[name].column for name in _MEASURED), "accuracy", "accuracy_stderr",
        "feasible", "on_front", "recommended", "speedup", "memory_ratio",
        *(_column(name) for name in further), "nominal_pruning_ratio", *searched.values(), *_LAST,
    ))  # fmt: skip
    table = pd.DataFrame(rows, columns=list(order))
    for column in ("bits", "batch_size", "cached_from"):
        if all(row[column] is None or type(row[column]) is int for row in rows):
            table[column] = table[column].astype("Int64")
    return table


def _row(
    record: TrialRecord, front: ParetoFront, values: Mapping[str, Value], baseline: TrialRecord | None
) -> dict[str, Value]:
    start, told = baseline.metrics if baseline else {}, texts_of(record.facts)
    return {
        "trial": record.number,
        "state": record.state,
        "reason": record.reason,
        "pruning_ratio": values.get(RATIO),
        "bits": values.get(BITS),
        "batch_size": batch_of(values),
        "feasible": record.number in front.feasible,
        "on_front": record.number in front.front,
        "recommended": record.number == front.recommended,
        "speedup": _quotient(record.metrics, start, "throughput"),
        "memory_ratio": _quotient(record.metrics, start, "peak_memory"),
        "nominal_pruning_ratio": values.get(RATIO),
        "is_baseline": record.is_baseline,
        "cached_from": record.cached_from,
        "confirmed": record.confirmed,
        **{name: told.get(name) for name in _FACTS},
        "realised_gain": realised(record.facts.gains),
        "no_realised_gain": not_realised(record.facts.gains, record.metrics) or None,
        "seconds": record.seconds,
        "started": record.started,
        "message": record.message,
        "notes": "; ".join(map(str, record.notes)),
    }


def _quotient(metrics: Mapping[str, float], start: Mapping[str, float], name: str) -> float | None:
    return metrics[name] / start[name] if name in metrics and start.get(name) else None
