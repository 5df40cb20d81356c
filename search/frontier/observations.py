"""Derives :class:`search.frontier.known.Observations` of a grid from the records of a study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from statistics import median

import numpy as np

from objectives.evaluation.problem import KEPT_BYTES
from objectives.metrics import METRICS, is_of_time
from objectives.types import Decision, Reason
from search.front.asked import Asked, asked_of
from search.front.feasibility import is_scored, verdict_of
from search.front.metric_limits import limits_on
from search.frontier.known import Flags, Gaps, Observations
from search.records.trial import TrialRecord
from search.space.grid import Floats, Grid

REPEATED = (Reason.CRASHED, Reason.TIMEOUT, Reason.ERROR)
"""Failures that may be chance."""
TRIES = 2
"""Such failures after which a cell is closed."""

FINAL = (Reason.OUT_OF_MEMORY, Reason.UNSUPPORTED, Reason.NOT_FINITE)
"""Failures that the same cell would meet again."""

_SIGNS = {Decision.REACHED: 1, Decision.MISSED: -1}
"""The numbers that stand for decisions in ``Observations.verdicts``; any other decision is 0."""

_HALF_WIDTH = 1.96
"""Standard errors in half of a 95 % interval."""

_HARDER = (Reason.OUT_OF_MEMORY, Reason.TIMEOUT)
"""Failures that the same model meets with more work as well."""


class ObservationBuilder:
    """Collects what trials say about ``grid``, one trial at a time; trials of other cells are ignored.

    ``floor``: the accuracy floor, absolute.
    """

    def __init__(self, grid: Grid, objectives: Sequence[str], floor: float) -> None:
        self.grid, self.objectives, self.floor = grid, tuple(objectives), floor
        cells, recipes = len(grid), int(grid.recipes.max()) + 1
        self._values = np.full((cells, len(self.objectives)), np.nan)
        self._value_errors = np.zeros((cells, len(self.objectives)))
        self._gaps, self._errors = np.full(recipes, np.nan), np.zeros(recipes)
        self._verdicts = np.zeros(recipes, np.int_)
        self._tasks: dict[str, Gaps] = {}
        self._memory, self._starved = np.full(cells, np.nan), np.zeros(cells, np.bool_)
        self._closed = np.zeros(cells, np.bool_)
        self._closed[list(grid.outside)] = True
        self._margins: dict[str, Floats] = {}
        self._over = np.zeros(cells, np.bool_)
        self._failed, self._room = Counter[int](), math.nan
        self._weights: dict[int, float] = {}
        self._spent: dict[str, list[float]] = {"compress": [], "score": [], "run": []}

    def add(self, record: TrialRecord) -> None:
        """Add a trial; what it says about its cell replaces what was known before."""
        index = self.grid.index(record.params)
        if index is None:
            return
        self._stages(record)
        recipe = int(self.grid.recipes[index])
        self._see_memory(index, record)
        if "weight_bytes" in record.metrics:
            self._weights.pop(recipe, None)  # the latest last
            self._weights[recipe] = record.metrics["weight_bytes"]
        if record.state == "failed" and record.reason in FINAL:
            self._closed |= implied(self.grid, index, record)
        if record.reason in REPEATED:
            self._failed[index] += 1
            if self._failed[index] >= TRIES:
                self._closed |= implied(self.grid, index, record)
        if record.state != "complete":
            return
        self._values[index] = [minimised_log(record.metrics, name) for name in self.objectives]
        error = record.metrics.get("speedup.error", 0.0) / _HALF_WIDTH
        self._value_errors[index] = [error if is_of_time(name) else 0.0 for name in self.objectives]
        if not np.isfinite(self._values[index]).all() and not record.facts.timing_skipped:
            self._closed[index] = True  # measured as far as it can be: another trial would show nothing new
        if self._values_are_known(index):
            self._see_limits(index, record)
        if not is_scored(record):
            return
        self._judge(recipe, record)

    def _values_are_known(self, index: int) -> bool:
        return bool(np.isfinite(self._values[index]).all())

    def _see_limits(self, index: int, record: TrialRecord) -> None:
        """Note how the cell keeps every limit: another cell of its recipe may keep it or not."""
        found = limits_on(record.metrics)
        self._over[index] = not all(each.is_kept for each in found)
        for each in found:
            self._margins.setdefault(each.metric, np.full(len(self.grid), np.nan))[index] = each.margin

    def _judge(self, recipe: int, record: TrialRecord) -> None:
        """Note how the recipe keeps every floor, and in ``_gaps`` the floor that falls shortest."""
        known = [each for each in asked_of(record, self.floor) if not math.isnan(each.value)]
        for each in known:
            _note(self._of(each.task), recipe, each)
        shortest = max(known, key=lambda each: each.short)
        _note(Gaps(self._gaps, self._errors, self._verdicts), recipe, shortest)
        self._verdicts[recipe] = _SIGNS.get(verdict_of(record, self.floor).decision, 0)

    def _of(self, task: str) -> Gaps:
        """Return the arrays of one floor, made at its first trial."""
        if task not in self._tasks:
            count = len(self._gaps)
            self._tasks[task] = Gaps(np.full(count, np.nan), np.zeros(count), np.zeros(count, np.int_))
        return self._tasks[task]

    def _see_memory(self, index: int, record: TrialRecord) -> None:
        """Note the peak memory of a trial, or the predicted one where it ran out, and then the available memory."""
        self._starved[index] = record.reason == Reason.OUT_OF_MEMORY
        name = "predicted_peak" if self._starved[index] else "peak_memory"
        self._memory[index] = minimised_log(record.metrics, name)
        if self._starved[index]:
            room = self._memory[index] - math.log1p(record.severity)
            self._room = float(np.fmin(self._room, room))

    def known(self) -> Observations:
        """Return the observations as they stand now."""
        return Observations(
            self.grid, self._values.copy(), self._gaps.copy(), self._errors.copy(), self._verdicts.copy(),
            self._closed.copy(), self._ready(), self._seconds(), self._memory.copy(), self._starved.copy(), self._room,
            self._value_errors.copy(), {name: deepcopy(each) for name, each in self._tasks.items()}, None,
            {name: each.copy() for name, each in self._margins.items()}, self._over.copy(),
        )  # fmt: skip

    def _ready(self) -> Flags:
        """Return, by recipe [recipes], whether its model was used so recently that memory still holds it."""
        ready, held = np.zeros(len(self._gaps), np.bool_), 0.0
        for recipe, weight in reversed(self._weights.items()):
            if held > KEPT_BYTES:
                break
            ready[recipe] = True
            held += weight
        return ready

    def _stages(self, record: TrialRecord) -> None:
        """Note the seconds of each stage that the trial really ran."""
        for name, spent in self._spent.items():
            seconds = record.metrics.get(f"{name}_seconds", 0.0)
            if seconds > 0 and record.cached_from is None:
                spent.append(seconds)

    def _seconds(self) -> dict[str, float | Floats]:
        """Return the median seconds of each stage; 1 where no trial ran it."""
        return {name: median(spent) if spent else 1.0 for name, spent in self._spent.items()}


def _note(known: Gaps, recipe: int, asked: Asked) -> None:
    """Write into ``known`` what a trial shows about one floor."""
    known.gaps[recipe] = asked.value - asked.floor
    known.errors[recipe] = 0.0 if asked.verdict.method == "exact" else asked.stderr
    known.verdicts[recipe] = _SIGNS.get(asked.verdict.decision, 0)


def known_of(grid: Grid, records: Sequence[TrialRecord], objectives: Sequence[str], floor: float) -> Observations:
    """Return the observations of ``grid`` that ``records`` give."""
    builder = ObservationBuilder(grid, objectives, floor)
    for record in records:
        builder.add(record)
    return builder.known()


def minimised_log(metrics: Mapping[str, float], name: str) -> float:
    """Return a metric in log units, smaller is better; NaN where it is not measured or not positive."""
    value = metrics.get(name, math.nan)
    if not value > 0:
        return math.nan
    return -math.log(value) if METRICS[name].higher_is_better else math.log(value)


def implied(grid: Grid, index: int, record: TrialRecord) -> Flags:
    """Return, by cell [cells], whether it must fail as cell ``index`` failed in ``record``, which is true of itself.

    A model that runs out of memory or time does so with more of the same work, and one that cannot be built cannot be
    built for another workload.
    """
    same = grid.recipes == grid.recipes[index]
    if record.reason == Reason.UNSUPPORTED:
        return np.asarray(same, dtype=np.bool_)
    if record.reason not in _HARDER:
        return np.asarray(np.arange(len(grid)) == index, dtype=np.bool_)
    work = [place for place, axis in enumerate(grid.axes) if axis.path.startswith("workload.") and axis.is_ordinal]
    other = [place for place, axis in enumerate(grid.axes) if axis.path.startswith("workload.") and not axis.is_ordinal]
    harder = (grid.places[:, work] >= grid.places[index, work]).all(axis=1)
    alike = (grid.places[:, other] == grid.places[index, other]).all(axis=1)
    return np.asarray(same & harder & alike, dtype=np.bool_)
