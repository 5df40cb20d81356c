"""Timing again at the end: contended trials each by itself, the front's members against each other.

A trial during which the machine never came to rest gets another chance. Then all members of the front run in shared
rounds with the baseline, for trials are minutes apart, and the fastest of many noisy figures is too good on average:
their speed is what those rounds say, and who no longer belongs is dropped. Memory repeats to the byte and is left.
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
"""A member that loses its place may bring in one that was never confirmed: then all are measured together again."""

TRIES = 2
"""How often members are measured while the machine is busy."""

AGAIN_SHARE = 0.25
"""Of the seconds that the trials took, at most so much goes into timing contended ones again."""

Measure = Callable[[Sequence[TrialRecord]], Sequence[Measurement]]
"""Times the trials given, in shared rounds. Raises Unmeasured."""


@dataclass(frozen=True)
class Confirmation:
    """``members``: by trial number, what was confirmed; ``again``: the same of contended trials that were calm later.

    ``dropped``: by number, why a trial left the front; ``failed``: why timing again ended early, where it did.
    """

    members: Mapping[int, Measurement] = field(default_factory=dict)
    again: Mapping[int, Measurement] = field(default_factory=dict)
    dropped: Mapping[int, str] = field(default_factory=dict)
    failed: str = ""


def is_timed(objectives: Sequence[str]) -> bool:
    """Whether any objective is a speed."""
    return any(map(is_of_time, objectives))


def time_again(records: Sequence[TrialRecord], measure: Measure, known: Confirmation) -> Confirmation:
    """Give those of ``records`` that are contended another chance, within a share of what all of them took.

    Returns ``known`` and what came of it.
    """
    again, failed = dict(known.again), known.failed
    ends = time.monotonic() + AGAIN_SHARE * sum(record.seconds for record in records)
    for record in records:
        known_already = record.number in again or record.number in known.members or record.cached_from is not None
        if not record.metrics.get("contended") or known_already or record.facts.is_cut_short:
            continue
        if time.monotonic() > ends:
            break
        try:
            (found,) = measure([record])
        except Unmeasured as error:
            failed = str(error)
            break
        if not found.metrics.get("contended"):
            again[record.number] = found
    return replace(known, again=again, failed=failed)


def confirm_front(
    records: Sequence[TrialRecord],
    cut: Callable[[Sequence[TrialRecord]], ParetoFront],
    measure: Measure,
    known: Confirmation,
) -> Confirmation:
    """Measure the members of the front against each other until all are confirmed; ``known`` and what came of it.

    ``cut``: the front of records. On a busy machine they are measured once more, and what was busy still confirms
    nothing: the trials' own figures stay.
    """
    members, failed = dict(known.members), known.failed
    before = set(cut(confirmed(records, replace(known, again={}))).front)
    for _ in range(PASSES):
        front = cut(confirmed(records, replace(known, members=members))).front
        own = [record for record in records if record.number in front and not record.is_baseline]
        if all(record.number in members for record in own):
            break
        try:
            found = _calm(own, measure)
        except Unmeasured as error:
            failed = str(error)
            break
        if not found:
            failed = "the machine was busy while the front was confirmed"
            break
        members |= dict(zip((record.number for record in own), found, strict=True))
    now = confirmed(records, replace(known, members=members))
    after = cut(now)
    gone = {number: _why(number, now, after) for number in sorted(before - set(after.front))}
    dropped = {number: why for number, why in {**known.dropped, **gone}.items() if number not in after.front}
    return replace(known, members=members, dropped=dropped, failed=failed)


def _calm(records: Sequence[TrialRecord], measure: Measure) -> Sequence[Measurement]:
    """Of a calm machine at the first or second try; empty where it was not."""
    for _ in range(TRIES):
        found = measure(records)
        if not any(each.metrics.get("contended") for each in found):
            return found
    return ()


def confirmed(
    records: Sequence[TrialRecord], confirmation: Confirmation, scale: TimeScale | None = None
) -> list[TrialRecord]:
    """The records on one scale of time, by default their own, with the latest speed of trials that were timed again."""
    baseline = baseline_of(records)
    if baseline is None:
        return list(records)
    found = []
    for record in records:
        source = record.number if record.cached_from is None else record.cached_from
        member = confirmation.members.get(source)
        later = member or confirmation.again.get(source)
        now = _retimed(record, later, baseline) if later else record
        found.append(replace(now, confirmed=member is not None and record.cached_from is None))
    return on_time_scale(found, scale or own_time_scale(records, confirmation))


def own_time_scale(records: Sequence[TrialRecord], confirmation: Confirmation) -> TimeScale | None:
    """Of the records, each as it was timed by itself at last."""
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
    """Return the notes of the later timing, and those of the trial that do not speak of its own."""
    return (*later.notes, *(note for note in record.notes if not note.code.is_of_timing))


def _shares(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Shares of the device's limit, by how the seconds of their phase changed."""
    phases = {"roofline.decode": "tpot", "roofline.prefill": "ttft", "roofline.encode": "encode"}
    if "roofline.prefill" not in before:  # an encoder alone: its run is one phase
        phases["roofline.encode"] = "latency.p50"
    pairs = ((share, name) for share, name in phases.items() if share in before and name in now)
    return {share: before[share] * before[name] / now[name] for share, name in pairs}


def _why(number: int, records: Sequence[TrialRecord], front: ParetoFront) -> str:
    """Which member is better now, and how the dropped one's speed changed."""
    by_number = {record.number: record for record in records}
    own = by_number[number]
    values = minimised([own, *(by_number[member] for member in front.front)], front.objectives)
    better = [member for member, row in zip(front.front, values[1:]) if (row <= values[0]).all()]
    trial, now = own.metrics.get("speedup.trial", own.metrics["speedup"]), own.metrics["speedup"]
    change = f"speed-up {trial:.3f}x in its trial" + (f", {now:.3f}x confirmed" if own.confirmed else "")
    return f"trial {better[0]} is at least as good in everything ({change})" if better else change
