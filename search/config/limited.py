"""Reads ``limits``: the metrics that a candidate has to keep beside the accuracy floor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from objectives.metrics import OF_BATCHES, OF_DECODERS, OF_LOADS
from objectives.protocols.running import Workload
from objectives.protocols.serving import Loading
from objectives.types import ENCODERS
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
        if value < 0:
            raise ConfigError(f"{_KEY}.{name}: no value is below 0, got {value!r}")
        if metric in found:
            raise ConfigError(f"{_KEY}.{name}: {metric} may be limited once")
        found[metric] = float(value)
    return MetricLimits(found)


def require_measurable(asked: Mapping[str, Iterable[str]], workload: Workload) -> None:
    """Raise ConfigError for a metric that ``workload`` never has; ``asked``: metrics by the setting that names them."""
    slo = workload.slo() if isinstance(workload, Loading) else None
    missing = dict.fromkeys(OF_LOADS, "workload=serving has it")
    if slo is not None:
        missing = dict.fromkeys(OF_BATCHES, "a load has no batches")
        if not slo:
            missing["goodput"] = "it counts requests within limits: workload.slo_ttft=0.5, or slo_tpot"
    elif workload.head in ENCODERS:
        missing |= dict.fromkeys(OF_DECODERS, "an encoder writes no tokens")
    for key, names in asked.items():
        for name in names:
            if name in missing:
                raise ConfigError(f"{key}: {name} is not measured by this workload: {missing[name]}")


def _flat(node: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted path: ``limits.ttft.p95=0.5`` nests."""
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        elif value is not None:
            yield f"{path}{name}", value
