"""What to do about a study in which nothing keeps the floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from search.feasible import is_scored
from search.floor import AccuracyFloor
from search.front import ParetoFront, baseline_of
from search.records import TrialRecord

NEAREST = 3


def advice(records: Sequence[TrialRecord], front: ParetoFront, floor: AccuracyFloor) -> tuple[str, ...]:
    """A line each: what binds, the nearest candidates, and the floor that would have done. Empty with a front."""
    if front.front:
        return ()
    scored = [r for r in records if is_scored(r) and r.cached_from is None]
    failures = Counter(r.reason.replace("_", " ") for r in records if r.state == "failed")
    if not scored:
        reasons = ", ".join(f"{reason} {count}x" for reason, count in failures.most_common())
        return (f"What binds: no trial was measured ({reasons}).",) if reasons else ()
    best = max(scored, key=lambda record: (record.metrics["accuracy"], -record.number))
    nearest = sorted(scored, key=lambda record: -record.metrics["accuracy"])[:NEAREST]
    gaps = "; ".join(f"trial {r.number}, {front.floor - r.metrics['accuracy']:.4f} below" for r in nearest)
    failed = f", and {sum(failures.values())} failed" if failures else ""
    return (
        f"What binds: accuracy; all of {len(scored)} scored trials miss the floor{failed}. Nearest: {gaps}.",
        f"The highest floor that would have been kept: {_setting(best, records, floor)} (trial {best.number}).",
    )


def _setting(best: TrialRecord, records: Sequence[TrialRecord], floor: AccuracyFloor) -> str:
    accuracy, baseline = best.metrics["accuracy"], baseline_of(records)
    if floor.relative and baseline is not None and baseline.metrics["accuracy"]:
        return f"accuracy_floor.epsilon={_down(accuracy / baseline.metrics['accuracy'])}"
    return f"accuracy_floor.epsilon={_down(accuracy)} accuracy_floor.relative=false"


def _down(value: float) -> str:
    """Four digits, rounded down, so that it still holds."""
    return f"{int(value * 1e4) / 1e4:.4f}"
