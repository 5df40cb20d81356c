"""The plain settings at the top of the configuration: names, limits, switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import pydantic
from pydantic import ConfigDict, Field, ValidationError

from objectives.metrics import METRICS
from search.errors import ConfigError
from search.space.instantiate import explain, nearest

Text = Annotated[str, Field(strict=True, min_length=1)]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Scalars:
    """The plain settings at the top of ``config.yaml``."""

    project: Annotated[str, Field(strict=True, max_length=255, pattern=r"^[A-Za-z0-9][\w.\-]*$")]
    study_name: Annotated[str, Field(strict=True, max_length=255, pattern=r"^[A-Za-z0-9][\w.,=\-]*$")] | None
    objectives: Annotated[tuple[Text, ...], Field(min_length=1)]
    n_trials: Annotated[int, Field(strict=True, ge=1)]
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    patience: Annotated[int, Field(strict=True, ge=1)] | None
    seed: Annotated[int, Field(strict=True, ge=0)]
    warm_start: Text | None
    home: Text
    storage: Text | None
    confirm: Annotated[bool, Field(strict=True)]
    debug: Annotated[bool, Field(strict=True)]


def scalars_of(resolved: Mapping[str, Any]) -> Scalars:
    """Return the checked plain settings. Raises ConfigError."""
    given: dict[str, Any] = {name: resolved.get(name) for name in Scalars.__dataclass_fields__}
    try:
        scalars = Scalars(**given)
    except ValidationError as error:
        raise ConfigError(explain(error, Scalars, "", given)) from error
    names = [metric_name(name) for name in scalars.objectives]
    if len(set(names)) < len(names):
        raise ConfigError(f"objectives: each may be named once, got {list(scalars.objectives)}")
    return replace(scalars, objectives=tuple(names))


def metric_name(name: str, key: str = "objectives") -> str:
    """Return the metric of that name (``latency_p95`` and ``latency.p95`` are the same). Raises ConfigError.

    ``key``: the setting that names it.
    """
    by_column = {metric.column: metric.name for metric in METRICS.values()}
    found = by_column.get(name.replace(".", "_"))
    if found is None:
        near = nearest(name, list(METRICS))
        raise ConfigError(f"{key}: unknown metric {name!r}{near}; `paretune metrics` lists them")
    return found
