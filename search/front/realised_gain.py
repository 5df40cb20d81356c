"""Describes what a trial gained, or did not gain, over the dense model at its batch size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from objectives.measuring.estimate import Estimate
from objectives.measuring.gains import ratio_of, speed_of
from objectives.types import GainFacts, Size, Speed
from search.records.trial import TrialRecord

Metrics = Mapping[str, float]

_SPEED_WORDS = {
    Speed.SLOWER: "slower than the dense model",
    Speed.EQUAL: "no measurable difference in speed from the dense model",
}
_SIZE_WORDS = {Size.LARGER: "larger than the dense model", Size.EQUAL: "no smaller than the dense model"}


def judged_anew(gains: GainFacts | None, metrics: Metrics) -> GainFacts | None:
    """Return ``gains`` with the verdict on speed of a later timing, whose results are ``metrics``."""
    speed = speed_of(metrics)
    if gains is None or speed is None:
        return gains
    return replace(gains, speed=speed, speed_reason="" if speed is Speed.FASTER else gains.speed_reason)


def speed_gain(record: TrialRecord) -> Speed | None:
    """Return how a trial's speed compares with the dense model's at its batch size; None where nobody compared.

    The dense model itself has no verdict in its facts: it is as fast as itself.
    """
    return speed_of(record.metrics) if record.facts.gains is None else record.facts.gains.speed


def realised(gains: GainFacts | None) -> str | None:
    """Return what improved: ``speed``, ``memory``, both or ``none``; None where nobody compared."""
    if gains is None:
        return None
    gained = {"speed": gains.speed is Speed.FASTER, "memory": gains.memory is Size.SMALLER}
    return ", ".join(name for name, is_so in gained.items() if is_so) or "none"


def not_realised(gains: GainFacts | None, metrics: Metrics) -> str:
    """Say what did not improve, by how much, and the likeliest reason; empty where both did."""
    parts = []
    ratio, share = ratio_of(metrics, "compression_speedup"), metrics.get("compression_memory_ratio")
    if gains is not None and gains.speed in _SPEED_WORDS and ratio is not None:
        parts.append(_sentence(f"{_SPEED_WORDS[gains.speed]} ({interval(ratio)})", gains.speed_reason))
    if gains is not None and gains.memory in _SIZE_WORDS and share is not None:
        parts.append(_sentence(f"{_SIZE_WORDS[gains.memory]} ({share:.2f}x)", gains.memory_reason))
    return "; ".join(parts)


def interval(found: Estimate) -> str:
    """Return a ratio with its interval: ``1.27x, 0.95x to 1.61x``."""
    return f"{found.value:.2f}x, {found.low:.2f}x to {found.high:.2f}x"


def _sentence(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what
