"""Confirming the front: its members are timed again, against each other, and who no longer belongs is dropped.

Trials are minutes apart, and the fastest of many noisy figures is too good on average. So at the end all members run in
shared rounds with the baseline; their speed is then what those rounds say. Memory repeats to the byte and is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from objectives.metrics import METRICS
from objectives.types import Measurement
from search.front import ParetoFront, baseline_of, minimised
from search.records import TrialRecord
from search.scale import on_one_scale

PASSES = 3
"""A member that loses its place may bring in one that was never confirmed, which is then measured too."""


@dataclass(frozen=True)
class Confirmation:
    """``members``: confirmed metrics by trial number; ``dropped``: by number, why a trial left the front.

    ``failed``: why nothing could be confirmed, where that is so.
    """

    members: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    dropped: Mapping[int, str] = field(default_factory=dict)
    failed: str = ""


def is_timed(objectives: Sequence[str]) -> bool:
    """Whether any objective is a speed."""
    return any(METRICS[name].unit in ("s", "1/s") or name.endswith("speedup") for name in objectives)


def confirm_front(
    records: Sequence[TrialRecord],
    cut: Callable[[Sequence[TrialRecord]], ParetoFront],
    measure: Callable[[Sequence[TrialRecord]], Sequence[Measurement]],
    known: Confirmation,
) -> Confirmation:
    """Measure the members of the front that ``known`` has not, until all are confirmed.

    ``cut``: the front of records; ``measure``: times the trials given, in shared rounds.
    """
    members = dict(known.members)
    before = set(cut(confirmed(records, known)).front)
    for _ in range(PASSES):
        front = cut(confirmed(records, Confirmation(members))).front
        fresh = [record for record in records if record.number in front and _is_open(record, members)]
        if not fresh:
            break
        members |= {record.number: dict(found.metrics) for record, found in zip(fresh, measure(fresh), strict=True)}
    now = confirmed(records, Confirmation(members))
    after = cut(now)
    left = sorted(before - set(after.front))
    return Confirmation(members, {**known.dropped, **{number: _why(number, now, after) for number in left}})


def _is_open(record: TrialRecord, members: Mapping[int, object]) -> bool:
    return record.number not in members and not record.is_baseline


def confirmed(records: Sequence[TrialRecord], confirmation: Confirmation) -> list[TrialRecord]:
    """The records on one scale of time, those of confirmed trials with the speed that was confirmed."""
    baseline = baseline_of(records)
    if baseline is None:
        return list(records)
    found = []
    for record in records:
        source = record.number if record.cached_from is None else record.cached_from
        metrics = confirmation.members.get(source)
        found.append(record if metrics is None else _confirmed(record, metrics, baseline))
    return on_one_scale(found)


def _confirmed(record: TrialRecord, metrics: Mapping[str, float], baseline: TrialRecord) -> TrialRecord:
    before, now = record.metrics["speedup"], metrics["speedup"]
    timed = {name: value for name, value in metrics.items() if name in record.metrics}
    timed["speedup.trial"] = before
    timed["throughput"] = baseline.metrics["throughput"] * now
    if "compression_speedup" in record.metrics:
        timed["compression_speedup"] = record.metrics["compression_speedup"] * now / before
    merged = {**record.metrics, **timed}
    facts = {**_judged(record.facts, merged), "reference": "baseline"} if record.facts else record.facts
    return replace(record, metrics=merged, facts=facts, confirmed=record.cached_from is None)


def _judged(facts: Mapping[str, str], metrics: Mapping[str, float]) -> dict[str, str]:
    """The ledger's verdict on speed, where what was confirmed says the opposite of the trial."""
    gained = [word for word in facts.get("realised_gain", "").split(", ") if word not in ("", "none")]
    speed = metrics.get("compression_speedup", 0.0)
    faster = speed * (1 - metrics.get("speedup.error", 0.0)) > 1
    if not facts.get("realised_gain") or faster == ("speed" in gained):
        return dict(facts)
    gained = [*(["speed"] if faster else []), *(word for word in gained if word != "speed")]
    reasons = [why for why in facts.get("no_realised_gain", "").split("; ") if why and "faster" not in why]
    if not faster:
        reasons.insert(0, f"no faster than dense ({speed:.2f}x) when it was confirmed")
    found = {**facts, "realised_gain": ", ".join(gained) or "none", "no_realised_gain": "; ".join(reasons)}
    return {name: text for name, text in found.items() if text}


def _why(number: int, records: Sequence[TrialRecord], front: ParetoFront) -> str:
    """Which member is better now, and how the dropped one's speed changed."""
    by_number = {record.number: record for record in records}
    own = by_number[number]
    values = minimised([own, *(by_number[member] for member in front.front)], front.objectives)
    better = [member for member, row in zip(front.front, values[1:]) if (row <= values[0]).all()]
    trial, now = own.metrics.get("speedup.trial", own.metrics["speedup"]), own.metrics["speedup"]
    change = f"speed-up {trial:.3f}x in its trial, {now:.3f}x confirmed"
    return f"trial {better[0]} is at least as good in everything ({change})" if better else change
