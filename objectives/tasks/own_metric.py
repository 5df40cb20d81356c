"""Asks a metric of a user's own for some rows, where it may well be undefined. The module is free of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from objectives.errors import TaskError
from objectives.tasks.finite import number
from objectives.tasks.resampling import Indices

OfPlaces = Callable[[Sequence[int]], Any]
"""The metric of the rows at some places; it raises TaskError where the user's function raises."""
_SHIFTS = 20


def alone(metric: OfPlaces, place: int) -> float:
    """Return the metric of one row; 0 where it cannot be told, as a correlation cannot."""
    found = _defined(metric, [place])
    return 0.0 if found is None else found


def resampled(metric: OfPlaces, places: Indices) -> float:
    """Return the metric of the rows at ``places``, or, where it has none there, of those that follow them.

    An area under a curve needs rows of both kinds, which a few resamples of few rows lack. The places next to those of
    a resample, the first after the last, are a resample as likely, and the same ones whichever model is scored. Raises
    TaskError where many in a row have no metric, and the user's function says why; NaN where it does not.
    """
    for shift in range(_SHIFTS):
        found = _defined(metric, ((places + shift) % len(places)).tolist())
        if found is not None:
            return found
    return plain(metric(places.tolist()))


def plain(value: Any) -> float:
    """Return a number as a float, NaN for anything else."""
    found = number(value)
    return math.nan if found is None else found


def _defined(metric: OfPlaces, places: Sequence[int]) -> float | None:
    try:
        found = plain(metric(places))
    except TaskError:
        return None
    return found if math.isfinite(found) else None
