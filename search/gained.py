"""What a trial gained over the dense model at its batch size, as typed facts, and the words for what it did not gain.

``speed_gain`` and ``memory_gain`` hold members of :class:`Speed` and :class:`Size`; ``speed_reason`` and
``memory_reason`` are texts that nothing decides on.
"""

from __future__ import annotations

from collections.abc import Mapping

from objectives.measuring.estimate import Estimate
from objectives.measuring.gains import Size, Speed, ratio_of, size_of, speed_of
from search.records import TrialRecord

Facts = Mapping[str, str]
Metrics = Mapping[str, float]

_SENTENCES = {"speed": "no faster than dense", "memory": "no smaller than dense"}
_SPEED_WORDS = {Speed.SLOWER: "slower than dense", Speed.EQUAL: "not told apart from dense in speed"}
_SIZE_WORDS = {Size.LARGER: "larger than dense", Size.EQUAL: "no smaller than dense"}


def typed(facts: Facts, metrics: Metrics) -> dict[str, str]:
    """Return ``facts`` with what studies from before 2026-11-28 say in sentences (``no_realised_gain``) as types.

    This is the only reader of those sentences.
    """
    if "realised_gain" not in facts:
        return dict(facts)
    found = {name: text for name, text in facts.items() if name not in ("realised_gain", "no_realised_gain")}
    gained = facts["realised_gain"].split(", ")
    found["speed_gain"] = str(speed_of(metrics) or (Speed.FASTER if "speed" in gained else Speed.EQUAL))
    found["memory_gain"] = str(size_of(metrics) or (Size.SMALLER if "memory" in gained else Size.EQUAL))
    for sentence in facts.get("no_realised_gain", "").split("; "):
        head, _, why = sentence.partition(": ")
        for name, beginning in _SENTENCES.items():
            if head.startswith(beginning) and why and not why.startswith("within the noise"):
                found[f"{name}_reason"] = why
    return found


def judged_anew(facts: Facts, metrics: Metrics) -> dict[str, str]:
    """Return ``facts`` with the verdict on speed that a later timing, in ``metrics``, gives."""
    found, speed = dict(facts), speed_of(metrics)
    if "speed_gain" in found and speed is not None:
        found["speed_gain"] = str(speed)
        if speed is Speed.FASTER:
            found.pop("speed_reason", None)
    return found


def speed_gain(record: TrialRecord) -> Speed | None:
    """Return how its speed compares with the dense model's at its batch size; None where nobody compared.

    The dense model itself has no verdict in its facts: it is as fast as itself.
    """
    told = record.facts.get("speed_gain")
    return speed_of(record.metrics) if told is None else Speed(told)


def realised(facts: Facts) -> str | None:
    """Return in what was gained: ``speed``, ``memory``, both or ``none``; None where nobody compared."""
    if "speed_gain" not in facts:
        return None
    gained = {"speed": facts["speed_gain"] == Speed.FASTER, "memory": facts.get("memory_gain") == Size.SMALLER}
    return ", ".join(name for name, is_so in gained.items() if is_so) or "none"


def not_realised(facts: Facts, metrics: Metrics) -> str:
    """Return in words what was not gained, by how much, and the likeliest reason; empty where all was."""
    parts = []
    speed, ratio = facts.get("speed_gain"), ratio_of(metrics, "compression_speedup")
    if speed in (Speed.EQUAL, Speed.SLOWER) and ratio is not None:
        parts.append(_sentence(f"{_SPEED_WORDS[Speed(speed)]} ({interval(ratio)})", facts.get("speed_reason")))
    size, share = facts.get("memory_gain"), metrics.get("compression_memory_ratio")
    if size in (Size.EQUAL, Size.LARGER) and share is not None:
        parts.append(_sentence(f"{_SIZE_WORDS[Size(size)]} ({share:.2f}x)", facts.get("memory_reason")))
    return "; ".join(parts)


def interval(found: Estimate) -> str:
    """Return a ratio with its interval: ``1.27x, 0.95x to 1.61x``."""
    return f"{found.value:.2f}x, {found.low:.2f}x to {found.high:.2f}x"


def _sentence(what: str, why: str | None) -> str:
    return f"{what}: {why}" if why else what
