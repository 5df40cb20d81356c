"""Reads ``limits``: the metrics that a candidate has to keep beside the accuracy floor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from search.config.scalars import metric_name
from search.errors import ConfigError
from search.front.metric_limits import MetricLimits

_KEY = "limits"


def metric_limits_of(node: Any) -> MetricLimits:
    """Return the limits that ``node`` names, written ``{ttft.p95: 0.5}`` or nested. Raises ConfigError."""
    if node is None:
        return MetricLimits()
    if not isinstance(node, Mapping):
        raise ConfigError(f"{_KEY}: expected metrics with numbers in base units, as {{ttft.p95: 0.5}}; got {node!r}")
    found: dict[str, float] = {}
    for name, value in _flat(node):
        metric = metric_name(name, _KEY)
        if metric.startswith("accuracy"):
            raise ConfigError(f"{_KEY}.{name}: an accuracy has a floor: accuracy_floor.epsilon=0.99")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"{_KEY}.{name}: expected a number in base units (seconds, bytes, 1/s), got {value!r}")
        if metric in found:
            raise ConfigError(f"{_KEY}.{name}: {metric} may be limited once")
        found[metric] = float(value)
    return MetricLimits(found)


def _flat(node: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted path: ``limits.ttft.p95=0.5`` nests."""
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        elif value is not None:
            yield f"{path}{name}", value
