"""Writes the result of a study in words: the recommendation, its gains, and what is not known; a line for each idea."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives.metrics import METRICS
from objectives.types import Reference, Speed
from search.front.advice import below
from search.front.front import ParetoFront
from search.records.stop_reason import StopReason
from search.reporting.formatting import Row, heading, in_words, label, ratio, score, show
from search.reporting.headline import FIRM, Accuracy, Gain, Headline, Limit
from search.reporting.tables import failures

if TYPE_CHECKING:
    from search.reporting.study_info import StudyInfo

_WHY = {
    Limit.BUSY: "the machine was busy, and the same command on a calm one times it again",
    Limit.SECONDS: "timing.max_seconds ended it",
    Limit.ROUNDS: "timing.max_rounds ended it",
    Limit.BRIEF: "timed only until others were ahead",
}
_GAINED = ("throughput", "speedup", "peak_memory", "memory_ratio", "accuracy", "compression_speedup")


def result(study: StudyInfo, rows: Sequence[Row], front: ParetoFront, searched: Sequence[str]) -> list[str]:
    """Return the result, the most important line first; ``rows``: those of :func:`search.front.table.frame`."""
    if study.gains is None:
        return [_without(rows, front, searched)]
    row = next(row for row in rows if row["trial"] == study.gains.trial)
    found = [_recommended(study, row, front, searched), *gains(study.gains, row)]
    others = [name for name in front.objectives if name not in _GAINED]
    if others:
        found.append(_others(others, row, next(r for r in rows if r["trial"] == study.baseline), study.rate))
    return [*found, _accuracy(study.gains.accuracy), *_slower(rows, front, study.gains)]


def gains(found: Headline, row: Row) -> list[str]:
    """Return what the candidate gains by compression, by its runtime and by its batch size, as far as measured."""
    if found.is_baseline:
        return []
    if found.together is None:
        return ["Neither speed nor memory was measured: what was rounded or masked is not stored so."]
    lines = [_compression(found, row)]
    if found.runtime is not None:
        lines.append(f"Runtime: {_times(found.runtime)} the speed of torch, both with the dense model.")
    if not found.is_like_the_baseline:
        lines += [_batching(found), _together(found)]
    elif found.latency is not None and found.latency.is_above:
        lines.append(f"A request takes {_times(found.latency)} as long as the baseline's.")
    return [*lines, *_why_ranges(found)]


def gain_text(gain: Gain) -> str:
    """Return a gain as a figure with its error, as a range where it is none: ``1.92× ±4 %``, ``0.95× to 1.61×``."""
    if gain.is_exact:
        return ratio(1.0)
    if gain.is_firm:
        return f"{ratio(gain.value)} ±{100 * gain.error:.2g} %"
    if not math.isfinite(gain.high):
        return f"about {ratio(gain.value)}, no interval known"
    return f"at most {ratio(gain.high)}" if _is_bottomless(gain) else f"{ratio(gain.low)} to {ratio(gain.high)}"


def _times(gain: Gain) -> str:
    """Return a gain as :func:`gain_text` does, with the words for a range that fit into a sentence."""
    if gain.is_exact or gain.is_firm or _is_bottomless(gain) or not math.isfinite(gain.high):
        return gain_text(gain)
    return f"between {ratio(gain.low)} and {ratio(gain.high)}"


def _is_bottomless(gain: Gain) -> bool:
    """Return whether the interval reaches down to almost 0, as one of few rounds does: its lower end says nothing."""
    return gain.low < 0.05 * gain.value


def _why_ranges(found: Headline) -> list[str]:
    """Return why gains are told as ranges, where the timing says why; not for those close to 1 and well known."""
    told = (found.compression, found.runtime, found.batching, found.together)
    wide = [gain for gain in told if gain is not None and gain.error > FIRM]
    limits = dict.fromkeys(limit for gain in wide for limit in gain.limits)
    return [f"No single figure where a range stands: {'; '.join(_WHY[limit] for limit in limits)}."] if limits else []


def _recommended(study: StudyInfo, row: Row, front: ParetoFront, searched: Sequence[str]) -> str:
    so_far = " so far" if study.stop_reason is StopReason.INTERRUPTED else ""
    words = in_words(row, searched)
    if not row["is_baseline"]:
        return f"Recommended{so_far}: trial {row['trial']}, {words}."
    why = "nothing measured keeps the floor and is better in an objective"
    if len(front.front) > 1:
        why = "no other member of the front is worth more by the trade-off"
    return f"Recommended{so_far}: the baseline as it is, {words}: {why if not front.passed_over else _PASSED}."


_PASSED = "what compression offers is slower than the dense model at the same batch size"


def _compression(found: Headline, row: Row) -> str:
    dense = "the dense model" + ("" if found.batch_size is None else f" at batch {found.batch_size}")
    if found.runtime is not None:
        dense = f"the same runtime's dense model at batch {found.batch_size}"
    memory = "" if found.compression_memory is None else f", {ratio(found.compression_memory)} its peak memory"
    gain = found.compression
    if gain is None:
        reason = ": memory does not hold both" if row.get("reference") == Reference.SENTINEL else ""
        return f"Compression: not told apart from the batch size, since {dense} was not timed{reason}."
    if gain.is_exact:
        return f"Compression: none, this is {dense}."
    if found.runtime is not None:
        memory = ""  # what is known of memory is held against torch
    if not gain.is_told_apart and gain.error <= FIRM:
        return f"Compression: speed not told apart from that of {dense} ({gain_text(gain)}){memory}."
    slower = f": slower than {dense}" if gain.is_below else ""
    return f"Compression: {_times(gain)} the speed of {dense}{memory}{slower}."


def _batching(found: Headline) -> str:
    takes = ""
    if found.latency is not None and found.latency.is_above:
        takes = f"; a request takes {_times(found.latency)} as long"
    if found.batching is None:
        return f"Batch {found.batch_size} instead of {found.baseline_batch_size}: its own gain was not measured{takes}."
    if found.batching.is_exact:
        return f"Batch {found.batch_size}, as the baseline{takes}."
    size = f"batch {found.batch_size} instead of {found.baseline_batch_size}"
    return f"Batch size: {_times(found.batching)} the speed by {size}, both with the dense model{takes}."


def _together(found: Headline) -> str:
    memory = "" if found.memory is None else f", {ratio(found.memory)} its peak memory"
    assert found.together is not None
    return f"Together: {_times(found.together)} the speed of the baseline{memory}."


def _others(names: Sequence[str], row: Row, baseline: Row, rate: str) -> str:
    """Return the objectives other than speed, memory and accuracy, each with its ratio to the baseline's."""
    parts = []
    for name in names:
        value, start = row[METRICS[name].column], baseline.get(METRICS[name].column)
        versus = f" ({ratio(value / start)} the baseline's)" if start and not row["is_baseline"] else ""
        parts.append(f"{heading(name)} {show(name, value, rate)}{versus}")
    return f"{'; '.join(parts)}."


def _accuracy(found: Accuracy) -> str:
    if found.exact:
        told = f"{score(found.value)} ≥ floor {score(found.floor)}"
    else:
        of = f" of {found.examples} examples" if found.examples else ""
        kept = {"certain": "is kept", "likely": "is likely kept", "undecided": "is not decided"}[found.certainty]
        told = f"about {score(found.value)}{of}; the floor {score(found.floor)} {kept}"
    return f"Accuracy: {told}{_loss(found.difference)}."


def _loss(difference: tuple[float, float, float] | None) -> str:
    if difference is None:
        return ""
    value, low, high = difference
    if low <= 0 <= high:
        return "; no loss told apart" if (low, high) != (0, 0) else "; as the baseline's"
    side = "below" if value < 0 else "above"
    ends = sorted((abs(low), abs(high)))
    return f"; {score(abs(value))} {side} the baseline's ({score(ends[0])} to {score(ends[1])})"


def _slower(rows: Sequence[Row], front: ParetoFront, found: Headline) -> list[str]:
    """Return what the recommendation passed over, or that there was no faster choice."""
    if front.passed_over:
        first, *more = front.passed_over
        row = next(row for row in rows if row["trial"] == first)
        also = f" and {len(more)} more" if more else ""
        gain = f"{ratio(row['compression_speedup'])} its speed" if row.get("compression_speedup") else "by its verdict"
        return [
            f"Passed over: trial {first} ({label(row)}){also}, slower than the dense model at its own batch size "
            f"({gain}); a trade-off that weighs memory more than speed takes it."
        ]
    if found.speed is Speed.SLOWER and not front.asks_for_memory:
        return [
            "Every member of the front is slower than the dense model at its own batch size: only memory is gained."
        ]
    return []


def _without(rows: Sequence[Row], front: ParetoFront, searched: Sequence[str]) -> str:
    """Return why nothing is recommended."""
    by_number = {row["trial"]: row for row in rows}
    if front.front:
        return f"{len(front.front)} on the front; without a finite trade-off none is recommended."
    if front.nearest_miss is not None and front.gap is not None:
        row = by_number[front.nearest_miss]
        who = "the baseline" if row["is_baseline"] else f"trial {row['trial']} ({label(row, searched)})"
        return (
            f"Nothing reaches the accuracy floor of {score(front.floor)}. The nearest miss is "
            f"{who} with accuracy {score(row['accuracy'])}, {below(front.gap)}."
        )
    reasons = ", ".join(f"{reason} {count}×" for reason, count in failures(rows).items())
    return f"Nothing could be measured in full{f': {reasons}' if reasons else ''}."
