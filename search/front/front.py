"""Turns records into the answer: which trials are feasible, which are on the front, which one is recommended.

A trial is feasible when it was measured in full, its accuracy reaches the floor and it keeps all limits. The front is
cut among feasible trials only, in the objectives as they were measured. Repeats of a cell carry the values of the trial
they repeat; they are feasible like it, but only the measured trial is a member of the front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from objectives.metrics import METRICS
from objectives.types import Speed
from search.front.asked import beyond, distance, missed_by, shortfall, tasks_of
from search.front.feasibility import is_feasible, is_scored
from search.front.metric_limits import keeps_limits
from search.front.pareto import Floats, hypervolume, knee, non_dominated
from search.front.realised_gain import speed_gain
from search.front.tradeoff import MissingMetricError, Tradeoff, asks_for_memory
from search.records.trial import TrialRecord


@dataclass(frozen=True)
class ParetoFront:
    """The front of the feasible trials above one accuracy floor; numbers are trial numbers.

    ``front`` is sorted by the first objective, best first. ``recommended``: the member of lowest trade-off.
    Unless memory is asked for (``asks_for_memory``, see :func:`search.front.tradeoff.asks_for_memory`), members that
    are slower than the dense model at their batch size are passed over while any other is left; ``passed_over``: those
    with a lower trade-off than the recommended one. ``speeds``: how every trial compares with the dense model at its
    batch size, where that was measured.
    ``hypervolume``: volume that the front dominates, in objectives divided by the baseline's.
    ``nearest_miss``: the most accurate trial below the floor, by ``gap``, when nothing is feasible; ``missed_by``: in
    words, what it misses of several floors, or which band.
    ``tradeoffs``: the trade-off of every measured trial, so that another floor can be cut from a report.
    """

    objectives: tuple[str, ...]
    floor: float
    feasible: frozenset[int]
    front: tuple[int, ...]
    recommended: int | None
    knee: int | None
    hypervolume: float
    nearest_miss: int | None
    gap: float | None
    tradeoffs: Mapping[int, float]
    speeds: Mapping[int, Speed] = field(default_factory=dict)
    passed_over: tuple[int, ...] = ()
    asks_for_memory: bool = False
    missed_by: str = ""


@dataclass(frozen=True)
class Step:
    """The front at all floors up to ``floor`` (inclusive) and above the step before."""

    floor: float
    front: tuple[int, ...]
    recommended: int | None


def cut(records: Sequence[TrialRecord], objectives: Sequence[str], floor: float, tradeoff: Tradeoff) -> ParetoFront:
    """Cut the front of ``records`` at accuracy >= ``floor`` (absolute, in [0, 1]).

    Without a measured baseline there are no trade-offs, hence no recommendation and no hypervolume. Raises
    ``ValueError`` for an unknown objective, and for a trade-off over metrics that the baseline does not have.
    """
    _check(objectives, floor)
    measured = [record for record in records if _complete(record, objectives)]
    feasible = [record for record in measured if is_feasible(record, floor)]
    members = _members(feasible, objectives)
    baseline = baseline_of(measured)
    scores = _scores(measured, tradeoff, baseline)
    speeds = {record.number: speed for record in measured if (speed := speed_gain(record)) is not None}
    for_memory = asks_for_memory(tradeoff, objectives)
    ranked = _ranked([record.number for record in members], scores)
    recommended = _choose(ranked, {} if for_memory else speeds)
    bend = knee(minimised(members, objectives))
    miss = _nearest_miss(records, floor) if not feasible else None
    return ParetoFront(
        objectives=tuple(objectives),
        floor=floor,
        feasible=frozenset(record.number for record in feasible),
        front=tuple(record.number for record in members),
        recommended=recommended,
        knee=None if bend is None else members[bend].number,
        hypervolume=_relative_hypervolume(members, measured, objectives, baseline),
        nearest_miss=None if miss is None else miss.number,
        gap=None if miss is None else shortfall(miss, floor),
        tradeoffs=scores,
        speeds=speeds,
        passed_over=() if recommended is None else tuple(ranked[: ranked.index(recommended)]),
        asks_for_memory=for_memory,
        missed_by="" if miss is None else _missed_by(miss, floor),
    )


def by_floor(records: Sequence[TrialRecord], front: ParetoFront) -> list[Step]:
    """Return the fronts that :func:`cut` finds at any floor, lowest floor first; the accuracy estimate decides.

    Above the last step no trial is left. A floor that passes no member leaves the front as it is, so the steps end at
    the accuracies of members. Several tasks have no such order, and no steps.
    """
    if any(tasks_of(record.metrics) for record in records):
        return []
    kept = [record for record in records if keeps_limits(record.metrics) and record.cached_from is None]
    pool = [record for record in kept if _complete(record, front.objectives)]
    values = minimised(pool, front.objectives)  # once: there are as many steps as members at any floor
    accuracies = np.array([record.metrics["accuracy"] for record in pool])
    steps: list[Step] = []
    left = np.arange(len(pool))
    while len(left):
        chosen = _sorted_members(pool, values, left)
        numbers = tuple(pool[place].number for place in chosen)
        best = _choose(_ranked(numbers, front.tradeoffs), {} if front.asks_for_memory else front.speeds)
        steps.append(Step(float(accuracies[chosen].min()), numbers, best))
        left = left[accuracies[left] > steps[-1].floor]
    return steps


def _ranked(numbers: Sequence[int], scores: Mapping[int, float]) -> list[int]:
    """Return the numbers that have a finite trade-off, best first."""
    finite = [number for number in numbers if math.isfinite(scores.get(number, math.inf))]
    return sorted(finite, key=lambda number: (scores[number], number))


def _choose(ranked: Sequence[int], speeds: Mapping[int, Speed]) -> int | None:
    """Return the first that is not slower than the dense model at its batch size; if all are, the first of all."""
    kept = (number for number in ranked if speeds.get(number) is not Speed.SLOWER)
    return next(kept, next(iter(ranked), None))


def baseline_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the measured baseline (the unpruned 16-bit model), or None where there is none."""
    return next((record for record in records if record.is_baseline and record.state == "complete"), None)


def minimised(records: Sequence[TrialRecord], objectives: Sequence[str]) -> Floats:
    """Return the objective values [records, objectives], with the sign turned where higher is better."""
    signs = np.array([-1.0 if METRICS[name].higher_is_better else 1.0 for name in objectives])
    values = [[record.metrics[name] for name in objectives] for record in records]
    turned: Floats = np.array(values, dtype=np.float64).reshape(len(records), len(objectives)) * signs
    return turned


def _check(objectives: Sequence[str], floor: float) -> None:
    unknown = [name for name in objectives if name not in METRICS]
    if unknown or not objectives:
        raise ValueError(f"objectives must be among {', '.join(METRICS)}; got {list(objectives)}")
    if not math.isfinite(floor):
        raise ValueError(f"the accuracy floor must be a finite number, got {floor}")


def _complete(record: TrialRecord, objectives: Sequence[str]) -> bool:
    values = (record.metrics.get(name, math.nan) for name in (*objectives, "accuracy"))
    return record.state == "complete" and all(map(math.isfinite, values))


def _members(feasible: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    measured = [record for record in feasible if record.cached_from is None]
    chosen = _sorted_members(measured, minimised(measured, objectives), np.arange(len(measured)))
    return [measured[place] for place in chosen]


def _sorted_members(records: Sequence[TrialRecord], values: Floats, among: NDArray[np.intp]) -> list[int]:
    """Return the places of the ``records`` that none ``among`` them dominates, by their ``values``, then numbers."""
    chosen: list[int] = among[np.flatnonzero(non_dominated(values[among]))].tolist()
    return sorted(chosen, key=lambda place: (*values[place].tolist(), records[place].number))


def _scores(measured: Sequence[TrialRecord], tradeoff: Tradeoff, baseline: TrialRecord | None) -> dict[int, float]:
    if baseline is None:
        return {}
    scores = {baseline.number: tradeoff(baseline.metrics, baseline.metrics)}
    for record in measured:
        # What even the baseline lacks is a wrong setting and raises above; what one trial lacks (tpot of a
        # single output token) must not cost the report of all others.
        try:
            scores[record.number] = tradeoff(record.metrics, baseline.metrics)
        except MissingMetricError:
            scores[record.number] = math.inf
    return scores


def _nearest_miss(records: Sequence[TrialRecord], floor: float) -> TrialRecord | None:
    below = [r for r in records if is_scored(r) and not is_feasible(r, floor)]
    return min(below, key=lambda r: (distance(r, floor), r.number), default=None)


def _missed_by(record: TrialRecord, floor: float) -> str:
    plain = not tasks_of(record.metrics) and not beyond(record.metrics)
    return "" if plain else missed_by(record, floor)


def _relative_hypervolume(
    members: Sequence[TrialRecord],
    measured: Sequence[TrialRecord],
    objectives: Sequence[str],
    baseline: TrialRecord | None,
) -> float:
    """Return the hypervolume of the front in objectives divided by the baseline's.

    In each objective, the reference is 10 % worse than the baseline, or the worst trial where that is worse.
    """
    if baseline is None:
        return 0.0
    start = minimised([baseline], objectives)[0]
    unit = np.where(start == 0, 1.0, np.abs(start))
    worst = minimised(measured, objectives).max(axis=0) / unit
    reference = np.maximum(start / unit + 0.1, worst)
    return hypervolume(minimised(members, objectives) / unit, reference)
