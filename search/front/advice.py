"""Gives advice about a study in which no trial keeps the floor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from search.front.accuracy_floor import AccuracyFloor
from search.front.asked import (
    accuracies_of,
    asked_of,
    beyond,
    distance,
    least_share,
    named,
    shortfall,
    tasks_of,
)
from search.front.feasibility import is_scored, recipe_key, verdict_of
from search.front.front import ParetoFront, baseline_of
from search.records.trial import TrialRecord

NEAREST = 3


def advice(records: Sequence[TrialRecord], front: ParetoFront, floor: AccuracyFloor) -> tuple[str, ...]:
    """Return lines: what binds, the nearest candidates, the highest floor that one keeps; none if there is a front."""
    if front.front:
        return ()
    scored = [r for r in records if is_scored(r) and r.cached_from is None]
    failures = Counter(r.reason.replace("_", " ") for r in records if r.state == "failed")
    if not scored:
        reasons = ", ".join(f"{reason} {count}x" for reason, count in failures.most_common())
        return (f"What binds: no trial was measured ({reasons}).",) if reasons else ()
    best = min(scored, key=lambda record: (shortfall(record, front.floor), record.number))
    nearest = _one_a_recipe(sorted(scored, key=lambda record: distance(record, front.floor)))[:NEAREST]
    gaps = "; ".join(f"{_name(each)}, {how_far(each, front.floor)}" for each in nearest)
    failed = f", and {sum(failures.values())} failed" if failures else ""
    miss = f"all of {len(scored)} scored trials miss" if len(scored) > 1 else "the only scored trial misses"
    kept = (
        "would have been kept"
        if verdict_of(best, front.floor).method == "exact"
        else "may have been kept, by its estimate"
    )
    if any(beyond(each.metrics) for each in (best, *nearest)) or tasks_of(best.metrics):
        return (
            f"What binds: {miss} what is asked{failed}. Nearest: {gaps}.",
            *_above_the_dense(records, front.floor),
            *_settings_of_tasks(scored, records, floor),
        )
    return (
        f"What binds: accuracy; {miss} the floor{failed}. Nearest: {gaps}.",
        *_above_the_dense(records, front.floor),
        f"The highest floor that {kept}: {_setting(best, records, floor)} ({_name(best)}).",
    )


def _one_a_recipe(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the first record of every recipe, whose accuracy is the same at any batch size."""
    first: dict[object, TrialRecord] = {}
    for record in records:
        first.setdefault(recipe_key(record), record)
    return list(first.values())


def how_far(record: TrialRecord, floor: float) -> str:
    """Say how far a trial is from what is asked: below which floor, outside of which band, over which limit."""
    if not tasks_of(record.metrics):
        away = below(floor - record.metrics["accuracy"])
        wrong = beyond(record.metrics)
        return "; ".join([*([away] if floor > record.metrics["accuracy"] or not wrong else []), *wrong])
    missed = [each for each in asked_of(record, floor) if not math.isnan(each.value) and not each.is_kept]
    floors = [
        f"{below(each.short)} the floor of {each.task or 'the mean'}"
        if each.short > 0
        else f"{each.task}, {below(each.short)}"
        for each in missed
    ]
    return ", ".join([*floors, *beyond(record.metrics)])


def below(gap: float) -> str:
    """Say how far below the floor an accuracy is, never by zero: ``0.0123 below``."""
    if gap <= 0:  # the estimate keeps the floor, the race example by example does not
        return "which reaches the floor by its estimate, but misses it in the comparison example by example"
    return f"{gap:.4f} below" if gap >= 5e-5 else "less than 0.0001 below"


def _name(record: TrialRecord) -> str:
    return "the baseline" if record.is_baseline else f"trial {record.number}"


def _above_the_dense(records: Sequence[TrialRecord], floor: float) -> tuple[str, ...]:
    """Return a line that says that the dense model itself misses the floor; empty where it does not."""
    baseline = baseline_of(records)
    if baseline is None or not is_scored(baseline):
        return ()
    return tuple(
        f"The floor {named(each.task, f'{each.floor:.4f}')} lies above the dense model's own accuracy "
        f"{each.value:.4f}: compression would have to improve it."
        for each in asked_of(baseline, floor)
        if each.short > 0
    )


def _settings_of_tasks(
    scored: Sequence[TrialRecord], records: Sequence[TrialRecord], floor: AccuracyFloor
) -> tuple[str, ...]:
    """Return the highest floors of several tasks that one trial, scored on all of them, would keep together."""
    baseline = baseline_of(records)
    whole = [record for record in scored if "accuracy" in record.metrics and tasks_of(record.metrics)]
    if baseline is None or not whole:
        return ()
    others = [record for record in whole if not record.is_baseline] or whole
    best = max(others, key=lambda record: (least_share(record.metrics, baseline.metrics), -record.number))
    start = accuracies_of(baseline.metrics)
    kept = {
        name: value / (start[name] or 1.0) if floor.relative else value
        for name, value in accuracies_of(best.metrics).items()
    }
    settings = " ".join(f"accuracy_floor.{name}={_down(share)}" for name, share in kept.items())
    return (f"Floors that {_name(best)} keeps together, by its accuracies: {settings}.",)


def _setting(best: TrialRecord, records: Sequence[TrialRecord], floor: AccuracyFloor) -> str:
    accuracy, baseline = best.metrics["accuracy"], baseline_of(records)
    if floor.relative and baseline is not None and baseline.metrics["accuracy"]:
        return f"accuracy_floor.epsilon={_down(accuracy / baseline.metrics['accuracy'])}"
    return f"accuracy_floor.epsilon={_down(accuracy)} accuracy_floor.relative=false"


def _down(value: float) -> str:
    """Return ``value`` with four digits, rounded down, so that the candidate still keeps such a floor."""
    return f"{int(value * 1e4) / 1e4:.4f}"
