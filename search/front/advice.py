"""Gives advice about a study in which no trial keeps the floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from search.front.accuracy_floor import AccuracyFloor
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
    best = max(scored, key=lambda record: (record.metrics["accuracy"], -record.number))
    nearest = _one_a_recipe(sorted(scored, key=lambda record: -record.metrics["accuracy"]))[:NEAREST]
    gaps = "; ".join(f"{_name(each)}, {below(front.floor - each.metrics['accuracy'])}" for each in nearest)
    failed = f", and {sum(failures.values())} failed" if failures else ""
    miss = f"all of {len(scored)} scored trials miss" if len(scored) > 1 else "the only scored trial misses"
    kept = (
        "would have been kept"
        if verdict_of(best, front.floor).method == "exact"
        else "may have been kept, by its estimate"
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
    if baseline is None or "accuracy" not in baseline.metrics or baseline.metrics["accuracy"] >= floor:
        return ()
    return (
        f"The floor {floor:.4f} lies above the dense model's own accuracy {baseline.metrics['accuracy']:.4f}: "
        "compression would have to improve it.",
    )


def _setting(best: TrialRecord, records: Sequence[TrialRecord], floor: AccuracyFloor) -> str:
    accuracy, baseline = best.metrics["accuracy"], baseline_of(records)
    if floor.relative and baseline is not None and baseline.metrics["accuracy"]:
        return f"accuracy_floor.epsilon={_down(accuracy / baseline.metrics['accuracy'])}"
    return f"accuracy_floor.epsilon={_down(accuracy)} accuracy_floor.relative=false"


def _down(value: float) -> str:
    """Return ``value`` with four digits, rounded down, so that the candidate still keeps such a floor."""
    return f"{int(value * 1e4) / 1e4:.4f}"
