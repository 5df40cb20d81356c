"""What the records of a study say of its grid: see :class:`search.frontier.outlook.Known`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from objectives.metrics import METRICS
from objectives.types import Reason
from search.feasible import decision_of
from search.frontier.grid import Floats, Grid
from search.frontier.outlook import Flags, Known
from search.records import TrialRecord

KEPT_BYTES = float(1 << 30)
"""Of the latest compressed models, which the worker still holds: see ``objectives.recipes``."""

FINAL = (Reason.OUT_OF_MEMORY, Reason.TIMEOUT, Reason.UNSUPPORTED, Reason.NOT_FINITE)
"""Failures that the same cell would meet again."""

_HARDER = (Reason.OUT_OF_MEMORY, Reason.TIMEOUT)
"""Failures that more work of the same model meets as well."""


def known_of(grid: Grid, records: Sequence[TrialRecord], objectives: Sequence[str], floor: float) -> Known:
    """Everything that ``records`` say; trials of cells that are not in the grid are left out."""
    own = placed(grid, records)
    recipes = int(grid.recipes.max()) + 1
    values = np.full((len(grid), len(objectives)), np.nan)
    gaps, errors, verdicts = np.full(recipes, np.nan), np.zeros(recipes), np.zeros(recipes, np.int_)
    for index, record in own:
        recipe = grid.recipes[index]
        if record.state != "complete":
            continue
        gaps[recipe] = record.metrics["accuracy"] - floor
        errors[recipe] = 0.0 if decision_of(record, floor).exact else record.metrics["accuracy_stderr"]
        verdicts[recipe] = {"reached": 1, "missed": -1}.get(decision_of(record, floor).decision, 0)
        values[index] = [_minimised(record.metrics, name) for name in objectives]
    memory, starved = np.full(len(grid), np.nan), np.zeros(len(grid), np.bool_)
    for index, record in own:
        memory[index] = _minimised(record.metrics, "peak_memory")
        starved[index] = record.reason == Reason.OUT_OF_MEMORY
    closed, ready = closed_by(grid, records), _ready(grid, own, recipes)
    return Known(grid, values, gaps, errors, verdicts, closed, ready, _seconds(own), memory, starved)


def _minimised(metrics: Mapping[str, float], name: str) -> float:
    """In log units, smaller is better; NaN where it is not measured, or has no logarithm."""
    value = metrics.get(name, math.nan)
    if not value > 0:
        return math.nan
    return -math.log(value) if METRICS[name].higher_is_better else math.log(value)


def placed(grid: Grid, records: Sequence[TrialRecord]) -> list[tuple[int, TrialRecord]]:
    """Records with the number of their cell; those of other cells are left out."""
    return [(index, record) for record in records if (index := grid.index(record.params)) is not None]


def closed_by(grid: Grid, records: Sequence[TrialRecord]) -> Flags:
    """[cells]: those that failed for good, and those that must fail as well.

    A model that runs out of memory or time does so with more of the same work, and one that cannot be built cannot be
    built for another workload.
    """
    closed = np.zeros(len(grid), np.bool_)
    for index, record in placed(grid, records):
        if record.state == "failed" and record.reason in FINAL:
            closed[index] = True
            closed |= implied(grid, index, record)
    return closed


def implied(grid: Grid, index: int, record: TrialRecord) -> Flags:
    """[cells]: which fail because that one did."""
    same = grid.recipes == grid.recipes[index]
    if record.reason == Reason.UNSUPPORTED:
        return np.asarray(same, dtype=np.bool_)
    if record.reason not in _HARDER:
        return np.zeros(len(grid), np.bool_)
    work = [place for place, axis in enumerate(grid.axes) if axis.path.startswith("workload.") and axis.is_ordinal]
    other = [place for place, axis in enumerate(grid.axes) if axis.path.startswith("workload.") and not axis.is_ordinal]
    more = (grid.places[:, work] >= grid.places[index, work]).all(axis=1)
    alike = (grid.places[:, other] == grid.places[index, other]).all(axis=1)
    return np.asarray(same & more & alike, dtype=np.bool_)


def _ready(grid: Grid, own: Sequence[tuple[int, TrialRecord]], recipes: int) -> Flags:
    """[recipes]: whose models were used last, as far as memory holds them."""
    ready, held = np.zeros(recipes, np.bool_), 0.0
    for index, record in reversed(own):
        if not ready[grid.recipes[index]] and held <= KEPT_BYTES and "weight_bytes" in record.metrics:
            ready[grid.recipes[index]] = True
            held += record.metrics["weight_bytes"]
    return ready


def _seconds(own: Sequence[tuple[int, TrialRecord]]) -> dict[str, float | Floats]:
    """Typical seconds of each stage, of trials that really did it."""
    found: dict[str, float | Floats] = {}
    stages = {name: [r.metrics.get(f"{name}_seconds", 0.0) for _, r in own] for name in ("compress", "score")}
    stages["time"] = [
        r.seconds - sum(r.metrics.get(f"{name}_seconds", 0.0) for name in ("compress", "score"))
        for _, r in own
        if "timing_seconds" in r.metrics and r.cached_from is None
    ]
    for name, values in stages.items():
        spent = [value for value in values if value > 0]
        found[name] = median(spent) if spent else 1.0
    return found
