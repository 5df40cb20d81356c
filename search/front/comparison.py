"""Compares two studies: the same cells in both, the order of these cells, and what one front lacks of the other.

A is the first study, B the one that it is compared with; pairs of values are in this order. Ratios are B/A, so
1.1 in throughput says that B is faster. Cells are told apart by the variables that either study searched. A variable
that a study held fixed counts with its value, so that a study over batch sizes meets one that ran at a single size.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from objectives.measuring.fingerprint import unlike
from objectives.metrics import METRICS
from search.errors import ConfigError
from search.front.front import ParetoFront, baseline_of, minimised
from search.front.pareto import epsilon_indicator
from search.records.trial import TrialRecord, Value

Cell = Mapping[str, Value]
Key = tuple[Hashable, ...]
Pair = tuple[TrialRecord, TrialRecord]


@dataclass(frozen=True)
class Side:
    """A study as it enters a comparison. ``fixed``: values, by dotted path, of variables that it did not search."""

    name: str
    records: Sequence[TrialRecord]
    front: ParetoFront
    fixed: Mapping[str, Value] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratios:
    """The ratios B/A of one objective. ``cells``: by common cell, in order; ``worst``: where B does least well."""

    cells: tuple[float, ...]
    median: float
    worst: float


@dataclass(frozen=True)
class Cells:
    """The measured cells. ``common``: those of both studies; ``measured``: how many each study has.

    ``ratios``: by objective, empty without a common cell. ``order``: Kendall's tau-b of the first objective over the
    common cells: 1 for the same order, None where fewer than two values differ.
    """

    common: tuple[Cell, ...]
    measured: tuple[int, int]
    ratios: Mapping[str, Ratios]
    order: float | None


@dataclass(frozen=True)
class Fronts:
    """The two fronts. ``sizes``: members of each; ``only``: by front, its cells that are not on the other.

    ``coverage``: the factor, less one, by which B's front falls short of A's, and the reverse: 0 where it is nowhere
    worse, infinite where there is no front to cover the other (:func:`search.front.pareto.epsilon_indicator`).
    ``gains``: the same in multiples of each study's own baseline, whatever the machine's pace was; None without both
    baselines.
    """

    sizes: tuple[int, int]
    only: tuple[tuple[Cell, ...], tuple[Cell, ...]]
    coverage: tuple[float, float]
    gains: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """The comparison of two studies. ``studies``: names of A and B; ``hardware``: facts in which machines differ."""

    studies: tuple[str, str]
    objectives: tuple[str, ...]
    cells: Cells
    fronts: Fronts
    hardware: Mapping[str, tuple[str, str]]


def compare(first: Side, second: Side) -> Comparison:
    """Compare two studies over the same objectives, in the order in which ``first`` has them.

    Raises ConfigError where the objectives differ, and where a value is 0 or below, which has no meaningful ratio.
    """
    objectives = first.front.objectives
    if set(objectives) != set(second.front.objectives):
        names = f"{', '.join(objectives)} against {', '.join(second.front.objectives)}"
        raise ConfigError(f"objectives: must be the same in both studies, got {names}; objectives=[...] sets both")
    paths = sorted({path for side in (first, second) for record in side.records for path in record.params})
    return Comparison(
        studies=(first.name, second.name),
        objectives=objectives,
        cells=_compare_cells(first, second, paths, objectives),
        fronts=_compare_fronts(first, second, paths, objectives),
        hardware=unlike(first.machine, second.machine),
    )


def _compare_cells(first: Side, second: Side, paths: Sequence[str], objectives: Sequence[str]) -> Cells:
    mine, theirs = (_by_cell(side, _measured(side, objectives), paths) for side in (first, second))
    pairs = {key: (mine[key], theirs[key]) for key in mine if key in theirs}
    _require_positive(first.name, [pair[0] for pair in pairs.values()], objectives)
    _require_positive(second.name, [pair[1] for pair in pairs.values()], objectives)
    return Cells(
        common=tuple(_cell(first, record, paths) for record, _ in pairs.values()),
        measured=(len(mine), len(theirs)),
        ratios={name: _ratios(name, list(pairs.values())) for name in objectives} if pairs else {},
        order=_order(objectives[0], list(pairs.values())),
    )


def _compare_fronts(first: Side, second: Side, paths: Sequence[str], objectives: Sequence[str]) -> Fronts:
    mine, theirs = _members(first), _members(second)
    _require_positive(first.name, mine, objectives)
    _require_positive(second.name, theirs, objectives)
    cells, others = _by_cell(first, mine, paths), _by_cell(second, theirs, paths)
    values, against = minimised(mine, objectives), minimised(theirs, objectives)
    return Fronts(
        sizes=(len(mine), len(theirs)),
        only=(
            tuple(_cell(first, record, paths) for key, record in cells.items() if key not in others),
            tuple(_cell(second, record, paths) for key, record in others.items() if key not in cells),
        ),
        coverage=(epsilon_indicator(against, values), epsilon_indicator(values, against)),
        gains=_compare_gains(first, second, objectives),
    )


def _compare_gains(first: Side, second: Side, objectives: Sequence[str]) -> tuple[float, float] | None:
    """Return the coverage in multiples of each side's baseline; None without both baselines."""
    gains = []
    for side in (first, second):
        baseline = baseline_of(side.records)
        if baseline is None or not all(baseline.metrics.get(name, 0.0) > 0 for name in objectives):
            return None
        start = [baseline.metrics[name] for name in objectives]
        gains.append(minimised(_members(side), objectives) / start)
    mine, theirs = gains
    return epsilon_indicator(theirs, mine), epsilon_indicator(mine, theirs)


def _measured(side: Side, objectives: Sequence[str]) -> list[TrialRecord]:
    """Return the trials that were measured in every objective."""
    complete = (record for record in side.records if record.state == "complete")
    return [r for r in complete if all(math.isfinite(r.metrics.get(name, math.nan)) for name in objectives)]


def _members(side: Side) -> list[TrialRecord]:
    """Return the records of the front's members, in the order of the front."""
    by_number = {record.number: record for record in side.records}
    return [by_number[number] for number in side.front.front]


def _by_cell(side: Side, records: Sequence[TrialRecord], paths: Sequence[str]) -> dict[Key, TrialRecord]:
    """Return the records by cell: of equal cells the earliest, whose measurement the later ones repeat."""
    by_cell: dict[Key, TrialRecord] = {}
    for record in records:
        by_cell.setdefault(tuple(map(_hashable, _cell(side, record, paths).values())), record)
    return by_cell


def _cell(side: Side, record: TrialRecord, paths: Sequence[str]) -> Cell:
    return {path: record.params.get(path, side.fixed.get(path)) for path in paths}


def _hashable(value: Value) -> Hashable:
    return value if isinstance(value, Hashable) else str(value)


def _require_positive(study: str, records: Sequence[TrialRecord], objectives: Sequence[str]) -> None:
    for record in records:
        for name in objectives:
            if record.metrics[name] <= 0:
                raise ConfigError(
                    f"objectives: {name} must be above 0 to be compared by factors, got {record.metrics[name]:g} in "
                    f"trial {record.number} of {study}; objectives=[...] compares others"
                )


def _ratios(name: str, pairs: Sequence[Pair]) -> Ratios:
    values = tuple(theirs.metrics[name] / mine.metrics[name] for mine, theirs in pairs)
    worst = min(values) if METRICS[name].higher_is_better else max(values)
    return Ratios(values, median(values), worst)


def _order(name: str, pairs: Sequence[Pair]) -> float | None:
    from scipy.stats import kendalltau

    mine, theirs = ([pair[side].metrics[name] for pair in pairs] for side in (0, 1))
    if len(set(mine)) < 2 or len(set(theirs)) < 2:
        return None
    return float(kendalltau(mine, theirs, variant="b").statistic)
