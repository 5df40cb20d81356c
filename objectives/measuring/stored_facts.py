"""The stored form of facts and measurements, as JSON, CSV files and MLflow keep them, and how it is read back.

Facts are flat texts by name, as every version has stored them. Versions before 2026-11-28 stored gains as sentences;
these are read here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from objectives.measuring.gains import size_of, speed_of
from objectives.models.notes import notes_of, stored_notes
from objectives.types import (
    Decision,
    Facts,
    GainFacts,
    Measurement,
    Reference,
    Size,
    Speed,
    Stop,
    TimingFacts,
    Verdict,
)

_OLD_REASONS = {"no faster than dense": "speed_reason", "no smaller than dense": "memory_reason"}
"""Beginnings of the sentences in ``no_realised_gain``, and the fact that each gave the reason for."""


def texts_of(facts: Facts) -> dict[str, str]:
    """Return ``facts`` as flat texts by name; facts that do not apply are absent."""
    texts: dict[str, str] = {}
    if facts.timing is not None:
        texts |= {name: str(value) for name, value in vars(facts.timing).items()}
    texts |= _score_texts(facts)
    for name, task in facts.tasks.items():
        texts |= {f"{key}.{name}": text for key, text in {"link": "mean", **_score_texts(task)}.items()}
    if facts.timing_skipped:
        texts["skipped"] = "timing"
    if facts.gains is not None:
        texts |= {"speed_gain": str(facts.gains.speed), "memory_gain": str(facts.gains.memory)}
        reasons = {"speed_reason": facts.gains.speed_reason, "memory_reason": facts.gains.memory_reason}
        texts |= {name: text for name, text in reasons.items() if text}
    return texts


def _score_texts(facts: Facts) -> dict[str, str]:
    """Return the texts about a score: one of a trial, or one of several tasks."""
    texts = {} if facts.link == "mean" else {"link": str(facts.link)}
    if facts.verdict is not None:
        texts["verdict"] = str(facts.verdict.decision)
        if facts.verdict.decision is not Decision.UNSCORED:
            texts["verdict_by"] = facts.verdict.method
    return texts


def facts_of(texts: Mapping[str, str], metrics: Mapping[str, float] | None = None) -> Facts:
    """Return the facts that ``texts`` hold.

    ``metrics``: those of the same trial, for studies that stored gains as sentences. Raises ValueError for a text that
    names no known value.
    """
    texts = _typed_gains(texts, metrics or {})
    timing = gains = None
    if "reference" in texts or "stopped" in texts:
        timing = TimingFacts(
            Stop(texts.get("stopped", Stop.PRECISION)),
            Reference(texts.get("reference", Reference.BASELINE)),
            _one_of(texts.get("clock", "wall"), "wall", "cpu"),
        )
    if "speed_gain" in texts:
        gains = GainFacts(
            Speed(texts["speed_gain"]), Size(texts.get("memory_gain", Size.EQUAL)), texts.get("speed_reason", ""),
            texts.get("memory_reason", ""),
        )  # fmt: skip
    task = _score_facts(texts)
    names = [name.removeprefix("link.") for name in texts if name.startswith("link.")]
    tasks = {name: _score_facts(texts, f".{name}") for name in names}
    return Facts(timing, task.verdict, gains, task.link, "skipped" in texts, tasks)


def _score_facts(texts: Mapping[str, str], task: str = "") -> Facts:
    """Return what ``texts`` say about a score; ``task``: the end of their names, where it is one of several."""
    verdict = None
    if f"verdict{task}" in texts:
        method = _one_of(texts.get(f"verdict_by{task}", "exact"), "exact", "betting", "asymptotic", "none")
        verdict = Verdict(Decision(texts[f"verdict{task}"]), method)
    return Facts(verdict=verdict, link=_one_of(texts.get(f"link{task}", "mean"), "mean", "exp_minus_mean"))


def _one_of(text: str, *allowed: str) -> Any:
    if text not in allowed:
        raise ValueError(f"expected one of {', '.join(allowed)}, got {text!r}")
    return text


def _typed_gains(texts: Mapping[str, str], metrics: Mapping[str, float]) -> Mapping[str, str]:
    """Return ``texts`` with the sentences of ``realised_gain`` and ``no_realised_gain`` as types."""
    if "realised_gain" not in texts:
        return texts
    gained = texts["realised_gain"].split(", ")
    found = dict(texts)
    found["speed_gain"] = str(speed_of(metrics) or (Speed.FASTER if "speed" in gained else Speed.EQUAL))
    found["memory_gain"] = str(size_of(metrics) or (Size.SMALLER if "memory" in gained else Size.EQUAL))
    for sentence in texts.get("no_realised_gain", "").split("; "):
        head, _, why = sentence.partition(": ")
        for beginning, name in _OLD_REASONS.items():
            if head.startswith(beginning) and why and not why.startswith("within the noise"):
                found[name] = why
    return found


def stored_measurement(measured: Measurement) -> dict[str, Any]:
    """Return a measurement in the form that JSON keeps."""
    return {**asdict(measured), "notes": stored_notes(measured.notes), "facts": texts_of(measured.facts)}


def measurement_of(stored: Mapping[str, Any]) -> Measurement:
    """Return the measurement that :func:`stored_measurement` wrote; samples may be kept elsewhere."""
    samples = {name: tuple(values) for name, values in stored.get("samples", {}).items()}
    facts = facts_of(stored.get("facts", {}), stored["metrics"])
    return Measurement(
        stored["metrics"], samples, notes_of(stored.get("notes", ())), facts, tuple(stored.get("ids", ()))
    )
