"""Writes the result of a study in words: the recommendation, its gains, and what is not known; a line for each idea."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives.metrics import METRICS
from objectives.tasks.length_band import LENGTH_RATIO
from objectives.types import Reference, Speed
from search.front.advice import below
from search.front.front import ParetoFront
from search.front.metric_limits import what_is_asked
from search.records.stop_reason import StopReason
from search.reporting.bands import band_columns
from search.reporting.formatting import Row, heading, in_words, label, ratio, score, show
from search.reporting.headline import FIRM, Accuracy, Gain, Headline, Limit
from search.reporting.tables import failures

if TYPE_CHECKING:
    from search.reporting.study_info import StudyInfo

_WHY = {
    Limit.BUSY: "the machine was busy",
    Limit.SECONDS: "the timing reached timing.max_seconds",
    Limit.ROUNDS: "the timing reached timing.max_rounds",
    Limit.BRIEF: "the timing stopped once the trial was known to be dominated",
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
    for name, told in _accuracies(study.gains).items():
        found += [_accuracy(told, name), *_of_the_corpus(told, name)]
    return [*found, *_bands(row), *_limits(study, row), *_slower(rows, front, study.gains)]


def _accuracies(found: Headline) -> dict[str, Accuracy]:
    """Return what is asked, by task; the only task has the empty name, the mean of several is called so."""
    if not found.tasks:
        return {"": found.accuracy}
    return {**found.tasks, **({"the mean": found.accuracy} if found.accuracy.floor else {})}


def _bands(row: Row) -> list[str]:
    """Return the metrics that have to stay within a range, such as the answers' length; nothing where none has to."""
    lines = []
    for each in band_columns([row]):
        if row[each.least] is None:
            continue
        within = f"within {row[each.least]:g} to {row[each.most]:g}"
        if each.value.startswith(LENGTH_RATIO):
            task = each.value.removeprefix(LENGTH_RATIO).removeprefix("_")
            of = f" of {task}" if task else ""
            lines.append(f"Length of the answers{of}: {row[each.value]:.2f} of the references' tokens, {within}.")
        else:
            lines.append(f"{heading(each.value)}: {row[each.value]:.3g}, {within}.")
    return lines


def _limits(study: StudyInfo, row: Row) -> list[str]:
    """Return the limits that were asked for, each with what the candidate has; nothing where none was."""
    told = [
        f"{what_is_asked(name, limit)}, it has {show(name, row[METRICS[name].column], study.rate)}"
        for name, limit in study.limits.items()
    ]
    return [f"Limits: {'; '.join(told)}."] if told else []


def gains(found: Headline, row: Row) -> list[str]:
    """Return what the candidate gains by compression, by its runtime and by its batch size, as far as measured."""
    if found.is_baseline:
        return []
    if found.together is None:
        return ["Neither speed nor memory was measured: compression is only simulated, the weights are stored in full."]
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
        return f"about {ratio(gain.value)} (interval unknown)"
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
    """Return why gains are given as ranges, if the timing says why; empty for gains close to 1 and well known."""
    told = (found.compression, found.runtime, found.batching, found.together)
    wide = [gain for gain in told if gain is not None and gain.error > FIRM]
    limits = dict.fromkeys(limit for gain in wide for limit in gain.limits)
    if not limits:
        return []
    again = " The same command on a calm machine times it again." if Limit.BUSY in limits else ""
    return [f"The speed is given as a range, because {' and '.join(_WHY[limit] for limit in limits)}.{again}"]


def _recommended(study: StudyInfo, row: Row, front: ParetoFront, searched: Sequence[str]) -> str:
    so_far = " so far" if study.stop_reason is StopReason.INTERRUPTED else ""
    words = in_words(row, searched)
    if not row["is_baseline"]:
        return f"Recommended{so_far}: trial {row['trial']}, {words}."
    why = "nothing measured keeps the floor and is better in an objective"
    if len(front.front) > 1:
        why = "the trade-off prefers no other member of the front"
    return f"Recommended{so_far}: the baseline as it is, {words}: {why if not front.passed_over else _PASSED}."


_PASSED = "the compressed candidates are slower than the dense model at the same batch size"


def _compression(found: Headline, row: Row) -> str:
    dense = "the dense model" + ("" if found.batch_size is None else f" at batch {found.batch_size}")
    if found.runtime is not None:
        dense = f"the same runtime's dense model at batch {found.batch_size}"
    share = found.compression_memory if found.runtime is None else None  # memory is only compared with torch's
    memory = "" if share is None else f", {ratio(share)} its peak memory"
    gain = found.compression
    if gain is None:
        reason = ": memory cannot hold both models" if row.get("reference") == Reference.SENTINEL else ""
        return f"Compression: its own gain is unknown, because {dense} was not timed{reason}."
    if gain.is_exact:
        return f"Compression: none, this is {dense}."
    if not gain.is_told_apart and gain.error <= FIRM:
        memory = "" if share is None else f" The candidate's peak memory is {ratio(share)} as large."
        return f"Compression: the speed does not differ measurably from that of {dense} ({gain_text(gain)}).{memory}"
    slower = f": slower than {dense}" if gain.is_below else ""
    return f"Compression: {_times(gain)} the speed of {dense}{memory}{slower}."


def _batching(found: Headline) -> str:
    size = f"batch {found.batch_size} instead of {found.baseline_batch_size}"
    takes = ""
    if found.latency is not None and found.latency.is_above:
        takes = f" A request takes {_times(found.latency)} as long as the baseline's."
    if found.batching is None:
        return f"Batch size: the gain of {size} was not measured by itself.{takes}"
    if found.batching.is_exact:
        return f"Batch size: batch {found.batch_size}, as in the baseline.{takes}"
    return f"Batch size: with the dense model, {size} gives {_times(found.batching)} the speed.{takes}"


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


def _accuracy(found: Accuracy, task: str = "") -> str:
    if found.exact:
        told = f"{score(found.value)} ≥ floor {score(found.floor)}"
    else:
        of = f" on {found.examples} examples" if found.examples else ""
        kept = {"certain": "is kept", "likely": "is likely kept", "undecided": "may be kept or missed"}[found.certainty]
        told = f"about {score(found.value)}{of}; the floor {score(found.floor)} {kept}"
    return f"Accuracy{f' of {task}' if task else ''}: {told}{_loss(found.difference)}."


def _of_the_corpus(found: Accuracy, task: str = "") -> list[str]:
    """Return how sure a metric is that all examples give together; nothing for the mean of the examples."""
    if found.replicates is None:
        return []
    of = f" of {task}" if task else ""
    metric = f"The accuracy{of} is a metric of all examples together, not their mean, so it was always scored in full."
    if not found.replicates:
        return [f"{metric} The task gives no replicates, so no interval says how far chance moves it."]
    return [f"{metric} Its standard error is {score(found.stderr)}, from {found.replicates} resamples of the examples."]


def _loss(difference: tuple[float, float, float] | None) -> str:
    if difference is None:
        return ""
    value, low, high = difference
    if low <= 0 <= high:
        return f"; {'equal to' if (low, high) == (0, 0) else 'no measurable difference from'} the baseline's"
    side = "below" if value < 0 else "above"
    ends = sorted((abs(low), abs(high)))
    return f"; {score(abs(value))} {side} the baseline's (95 % interval {score(ends[0])} to {score(ends[1])})"


def _slower(rows: Sequence[Row], front: ParetoFront, found: Headline) -> list[str]:
    """Return what the recommendation passed over, or that there was no faster choice."""
    if front.passed_over:
        first, *more = front.passed_over
        row = next(row for row in rows if row["trial"] == first)
        also = f" and {len(more)} more" if more else ""
        gain = (
            f"{ratio(row['compression_speedup'])} its speed"
            if row.get("compression_speedup")
            else "as judged when it was timed"
        )
        return [
            f"Passed over: trial {first} ({label(row)}){also}, slower than the dense model at its own batch size "
            f"({gain}). A trade-off that weighs memory more than speed would recommend it."
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
        members = "1 member" if len(front.front) == 1 else f"{len(front.front)} members"
        return f"Nothing is recommended: the front has {members}, and the trade-off is finite for none."
    if front.nearest_miss is not None and front.gap is not None:
        row = by_number[front.nearest_miss]
        who = "the baseline" if row["is_baseline"] else f"trial {row['trial']} ({label(row, searched)})"
        if front.missed_by:
            return f"Nothing keeps all that is asked. The nearest miss is {who}: {front.missed_by}."
        return (
            f"Nothing reaches the accuracy floor of {score(front.floor)}. The nearest miss is "
            f"{who} with accuracy {score(row['accuracy'])}, {below(front.gap)}."
        )
    reasons = ", ".join(f"{reason} {count}×" for reason, count in failures(rows).items())
    return f"Nothing could be measured in full{f': {reasons}' if reasons else ''}."
