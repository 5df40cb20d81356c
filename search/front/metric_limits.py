"""Limits on measured metrics, which a candidate has to keep beside the accuracy floor: ``limits={ttft.p95: 0.5}``.

A metric of which less is better has a most, any other one a least. A trial carries the limits beside its metrics
(``limit.ttft.p95``), as it carries its floor, so whether it is feasible follows from the trial alone. The measured
value decides, without an interval. A limit is of a cell, not of a recipe: another batch size may keep it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from objectives.metrics import METRICS
from search.records.trial import TrialRecord

LIMIT = "limit."
"""The beginning of the names under which a trial carries its limits."""


@dataclass(frozen=True)
class MetricLimit:
    """A limit on one metric, and the value of a trial, NaN where it has none."""

    metric: str
    limit: float
    value: float

    @property
    def is_kept(self) -> bool:
        """Return whether the measured value keeps the limit; one that is not measured does not."""
        return self.value >= self.limit if METRICS[self.metric].higher_is_better else self.value <= self.limit

    @property
    def excess(self) -> float:
        """Return by how much the value is beyond the limit, relative to the limit; at most 0 where it is kept.

        A value that is not measured is beyond it by the whole limit.
        """
        if math.isnan(self.value):
            return 1.0
        beyond = self.value - self.limit
        return (-beyond if METRICS[self.metric].higher_is_better else beyond) / (abs(self.limit) or 1.0)

    @property
    def margin(self) -> float:
        """Return the room that is left below the limit, in log units; NaN where a logarithm says nothing."""
        if not (self.value > 0 and self.limit > 0):
            return math.nan
        room = math.log(self.limit / self.value)
        return -room if METRICS[self.metric].higher_is_better else room

    def __str__(self) -> str:
        """Return what is wrong, in words: ``ttft.p95 0.62, above its limit of 0.5``."""
        if math.isnan(self.value):
            return f"{self.metric} not measured, limit {self.limit:g}"
        side = "below" if METRICS[self.metric].higher_is_better else "above"
        return f"{self.metric} {self.value:.4g}, {side} its limit of {self.limit:g}"


@dataclass(frozen=True)
class MetricLimits:
    """The limits that a study asks for, by metric in base units."""

    limits: Mapping[str, float] = field(default_factory=dict)

    def on(self, record: TrialRecord) -> TrialRecord:
        """Return ``record`` with these limits instead of those that it carries; a failed trial carries none."""
        carried = any(name.startswith(LIMIT) for name in record.metrics)
        if record.state != "complete" or not (self.limits or carried):
            return record
        own = {name: value for name, value in record.metrics.items() if not name.startswith(LIMIT)}
        return replace(record, metrics={**own, **{f"{LIMIT}{name}": limit for name, limit in self.limits.items()}})

    def __bool__(self) -> bool:
        """Return whether anything is limited."""
        return bool(self.limits)


def limits_on(metrics: Mapping[str, float]) -> list[MetricLimit]:
    """Return the limits that a trial carries, with its values."""
    names = (name.removeprefix(LIMIT) for name in metrics if name.startswith(LIMIT))
    return [MetricLimit(name, metrics[f"{LIMIT}{name}"], metrics.get(name, math.nan)) for name in names]


def keeps_limits(metrics: Mapping[str, float]) -> bool:
    """Return whether a trial keeps all limits that it carries."""
    return all(each.is_kept for each in limits_on(metrics))


def over(metrics: Mapping[str, float]) -> list[str]:
    """Return the limits that a trial does not keep, as texts."""
    return [str(each) for each in limits_on(metrics) if not each.is_kept]


def what_is_asked(metric: str, limit: float) -> str:
    """Return what a limit asks for: ``ttft.p95 at most 0.5 s``."""
    end, unit = ("at least" if METRICS[metric].higher_is_better else "at most"), METRICS[metric].unit
    return f"{metric} {end} {limit:g}{f' {unit}' if unit else ''}"
