"""Measures again at the end: contended trials each by itself, the front's members against each other.

A trial is contended when other work kept the machine busy while it was timed; it is measured once more by itself. Then
all members of the front run in shared rounds with the baseline. Trials are minutes apart, and the fastest of many noisy
figures is too good on average, so a member's speed is what those rounds say. A member that is dominated by these
figures is dropped from the front. Memory is not measured again: it repeats to the byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from objectives.measuring.gains import noted, ratio_of, regained
from objectives.metrics import is_of_time
from objectives.types import Measurement, Note
from search.errors import Unmeasured
from search.front.front import ParetoFront, baseline_of, minimised
from search.front.realised_gain import judged_anew
from search.records.trial import TrialRecord
from search.study.timescale import TimeScale, on_time_scale, time_scale_of

PASSES = 2
"""Most rounds of confirmation. When a member is dropped, one that was never confirmed may take its place: then all
members are measured together again.
"""

TRIES = 2
"""The most times that members are measured while the machine is busy."""

AGAIN_SHARE = 0.25
"""Share of the trials' seconds that is spent at most on measuring contended trials again."""

Measure = Callable[[Sequence[TrialRecord]], Sequence[Measurement]]
"""Times the given trials in shared rounds. Raises Unmeasured."""


@dataclass(frozen=True)
class Confirmation:
    """The results of measuring again.
    ``members``: confirmed measurements of the front's members, by trial number. ``again``: by trial number, calm
    measurements of trials that were contended before. ``dropped``: by trial number, why it left the front. ``failed``:
    why measuring again ended early; empty where it did not.
    """

    members: Mapping[int, Measurement] = field(default_factory=dict)
    again: Mapping[int, Measurement] = field(default_factory=dict)
    dropped: Mapping[int, str] = field(default_factory=dict)
    failed: str = ""


def is_timed(objectives: Sequence[str]) -> bool:
    """Return whether any objective is a time or a speed."""
    return any(map(is_of_time, objectives))


def time_again(
    records: Sequence[TrialRecord], measure: Measure, known: Confirmation, at_a_time: int = 1
) -> Confirmation:
    """Measure the contended trials of ``records`` again, within ``AGAIN_SHARE`` of the seconds that they took.

    ``at_a_time``: how many trials ran together. Returns ``known`` with the calm measurements added.
    """
    again, failed = dict(known.again), known.failed
    ends = time.monotonic() + AGAIN_SHARE * sum(record.seconds for record in records) / at_a_time
    for record in records:
        known_already = record.number in again or record.number in known.members or record.cached_from is not None
        if not record.metrics.get("contended") or known_already or record.facts.is_cut_short:
            continue
        if time.monotonic() > ends:
            break
        try:
            (measurement,) = measure([record])
        except Unmeasured as error:
            failed = str(error)
            break
        if not measurement.metrics.get("contended"):
            again[record.number] = measurement
    return replace(known, again=again, failed=failed)


def confirm_front(
    records: Sequence[TrialRecord],
    cut: Callable[[Sequence[TrialRecord]], ParetoFront],
    measure: Measure,
    known: Confirmation,
) -> Confirmation:
    """Measure the members of the front against each other until all are confirmed, and return ``known`` updated.

    ``cut``: returns the front of records. On a busy machine the members are measured once more. If it is busy then too,
    nothing is confirmed and the trials' own figures stay.
    """
    members, failed = dict(known.members), known.failed
    before = set(cut(confirmed(records, replace(known, again={}))).front)
    for _ in range(PASSES):
        front = cut(confirmed(records, replace(known, members=members))).front
        on_front = [record for record in records if record.number in front and not record.is_baseline]
        if all(record.number in members for record in on_front):
            break
        try:
            measurements = _calm(on_front, measure)
        except Unmeasured as error:
            failed = str(error)
            break
        if not measurements:
            failed = "the machine was busy while the front was confirmed"
            break
        members |= dict(zip((record.number for record in on_front), measurements, strict=True))
    now = confirmed(records, replace(known, members=members))
    after = cut(now)
    gone = {number: _why(number, now, after) for number in sorted(before - set(after.front))}
    dropped = {number: why for number, why in {**known.dropped, **gone}.items() if number not in after.front}
    return replace(known, members=members, dropped=dropped, failed=failed)


def _calm(records: Sequence[TrialRecord], measure: Measure) -> Sequence[Measurement]:
    """Measure up to twice; return () if the machine was busy both times."""
    for _ in range(TRIES):
        measurements = measure(records)
        if not any(each.metrics.get("contended") for each in measurements):
            return measurements
    return ()


def confirmed(
    records: Sequence[TrialRecord], confirmation: Confirmation, scale: TimeScale | None = None
) -> list[TrialRecord]:
    """Return the records with the latest speed of trials that were measured again, and with times on one scale.

    ``scale``: by default that of the records themselves.
    """
    baseline = baseline_of(records)
    if baseline is None:
        return list(records)
    latest = []
    for record in records:
        source = record.number if record.cached_from is None else record.cached_from
        member = confirmation.members.get(source)
        later = member or confirmation.again.get(source)
        now = _retimed(record, later, baseline) if later else record
        latest.append(replace(now, confirmed=member is not None and record.cached_from is None))
    return on_time_scale(latest, scale or own_time_scale(records, confirmation))


def own_time_scale(records: Sequence[TrialRecord], confirmation: Confirmation) -> TimeScale | None:
    """Return the time scale of the records, from the last time that each was measured by itself."""
    baseline, again = baseline_of(records), confirmation.again
    if baseline is None:
        return None
    return time_scale_of(
        [_retimed(each, again[each.number], baseline) if each.number in again else each for each in records]
    )


def _retimed(record: TrialRecord, later: Measurement, baseline: TrialRecord) -> TrialRecord:
    before, now = record.metrics["speedup"], later.metrics["speedup"]
    timed = {name: value for name, value in later.metrics.items() if name in record.metrics}
    if record.is_baseline:  # 1 by definition, whatever it was beside itself
        merged = {**record.metrics, **{name: value for name, value in timed.items() if not name.startswith("speedup")}}
        return replace(record, metrics={**merged, "speedup.trial": before}, notes=_later_notes(record, later))
    timed |= {"speedup.trial": before, "throughput": baseline.metrics["throughput"] * now}
    speedup = ratio_of(later.metrics, "speedup")
    assert speedup is not None
    timed |= {name: value for name, value in noted("speedup", speedup).items() if name in record.metrics}
    timed |= regained(record.metrics, speedup)
    merged = {**record.metrics, **timed, **_shares(record.metrics, timed)}
    facts = replace(record.facts, gains=judged_anew(record.facts.gains, merged))
    if record.facts.timing is not None and later.facts.timing is not None:
        facts = replace(facts, timing=later.facts.timing)
    return replace(record, metrics=merged, facts=facts, notes=_later_notes(record, later))


def _later_notes(record: TrialRecord, later: Measurement) -> tuple[Note, ...]:
    """Return the notes of the later timing, and those notes of the trial that are not about its own timing."""
    return (*later.notes, *(note for note in record.notes if not note.code.is_of_timing))


def _shares(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return the shares of the device's limit, scaled by how the seconds of their phases changed."""
    phases = {"roofline.decode": "tpot", "roofline.prefill": "ttft", "roofline.encode": "encode"}
    if "roofline.prefill" not in before:  # an encoder alone: its run is one phase
        phases["roofline.encode"] = "latency.p50"
    pairs = ((share, name) for share, name in phases.items() if share in before and name in now)
    return {share: before[share] * before[name] / now[name] for share, name in pairs}


def _why(number: int, records: Sequence[TrialRecord], front: ParetoFront) -> str:
    """Return, as text, which member dominates the dropped trial now, and how the dropped one's speed changed."""
    by_number = {record.number: record for record in records}
    dropped = by_number[number]
    values = minimised([dropped, *(by_number[member] for member in front.front)], front.objectives)
    better = [member for member, row in zip(front.front, values[1:]) if (row <= values[0]).all()]
    now = dropped.metrics["speedup"]
    trial = dropped.metrics.get("speedup.trial", now)
    change = f"speed-up {trial:.3f}x in its trial" + (f", {now:.3f}x confirmed" if dropped.confirmed else "")
    return f"trial {better[0]} is at least as good in every objective ({change})" if better else change
