"""Decides for other floors, from the examples that a stored study kept of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from objectives.evaluation.floor_verdict import decide
from objectives.types import Decision, Facts, Score, Verdict
from search.front.asked import FLOOR
from search.front.feasibility import recipe_key, scorers_of, with_scores_of_recipe
from search.records.trial import TrialRecord

Samples = Mapping[str, Any]


def decided_again(
    records: Sequence[TrialRecord],
    samples: Mapping[int, Samples],
    floor: float,
    error: float,
    floors: Mapping[str, float] | None = None,
) -> list[TrialRecord]:
    """Return the records with verdicts for ``floor``, decided from the stored examples.

    ``samples``: those examples, by trial number; ``error``: the chance of a wrong verdict that one floor of a recipe
    may have. A trial whose examples are not stored keeps its verdict, which holds for its own floor. ``floors``: of
    several tasks, by name; then ``floor`` is that of their mean.
    """
    scored = {number for number, stored in samples.items() if _has_examples(stored)}
    start = next((record for record in records if record.is_baseline and record.number in scored), None)
    if start is None:
        return _without_examples(with_scores_of_recipe(records), floors or {})
    baselines = {task: _baseline(start, samples[start.number], task) for task in (floors or {"": floor})}
    result, scorers = [], scorers_of(records)
    for record, shared in zip(records, with_scores_of_recipe(records)):
        scorer = record if shared is record else scorers[recipe_key(record)]
        source = scorer.number if scorer.cached_from is None else scorer.cached_from
        stored = samples[source] if source in scored else {}
        for task, baseline in baselines.items():
            asked = floor if not task else (floors or {})[task]
            shared = _decided(shared, stored, baseline, asked, error, task)
        result.append(shared)
    return result


def _has_examples(stored: Samples) -> bool:
    return bool(stored.get("ids")) and any(name.startswith("accuracy") for name in stored)


def _without_examples(records: Sequence[TrialRecord], floors: Mapping[str, float]) -> list[TrialRecord]:
    """Return the records with ``floors``, where no examples are stored: a race against another floor is open."""
    for task, floor in floors.items():
        records = [_decided(record, {}, None, floor, 0.0, task) for record in records]
    return list(records)


def _baseline(start: TrialRecord, stored: Samples, task: str) -> Score:
    end = f".{task}" if task else ""
    link = start.facts.tasks[task].link if task else start.facts.link
    return Score(
        start.metrics[f"accuracy{end}"], start.metrics[f"accuracy_stderr{end}"], tuple(stored[f"accuracy{end}"]), {},
        _ids(stored, task), link=link, replicates=tuple(stored.get(f"replicates{end}", ())),
    )  # fmt: skip


def _ids(stored: Samples, task: str) -> tuple[str, ...]:
    """Return the names of a task's examples; those of several tasks are stored as ``<task>:<name>``."""
    if not task:
        return tuple(stored["ids"])
    return tuple(name.removeprefix(f"{task}:") for name in stored["ids"] if name.startswith(f"{task}:"))


def _decided(
    record: TrialRecord, stored: Samples, baseline: Score | None, floor: float, error: float, task: str
) -> TrialRecord:
    """Return the record with its verdict on one floor, which it then names as its own."""
    if record.state != "complete":
        return record
    if not task:
        return record if baseline is None else _of_the_only(record, stored, baseline, floor, error)
    before = record.facts.tasks.get(task, Facts())
    verdict = before.verdict
    if f"accuracy.{task}" in record.metrics and _is_raced(verdict) and record.metrics.get(f"{FLOOR}{task}") != floor:
        assert verdict is not None
        has_examples = baseline is not None and f"accuracy.{task}" in stored
        verdict = (
            _verdict(record, stored, baseline, floor, error, task)  # type: ignore[arg-type]
            if has_examples
            else replace(verdict, decision=Decision.OPEN)
        )
    tasks = {**record.facts.tasks, task: replace(before, verdict=verdict)}
    metrics = {**record.metrics, f"{FLOOR}{task}": floor}
    return replace(record, metrics=metrics, facts=replace(record.facts, tasks=tasks))


def _is_raced(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.method != "exact"


def _of_the_only(record: TrialRecord, stored: Samples, baseline: Score, floor: float, error: float) -> TrialRecord:
    if not stored or not _is_raced(record.facts.verdict) or record.metrics.get("floor") == floor:
        return record
    facts = replace(record.facts, verdict=_verdict(record, stored, baseline, floor, error, ""))
    return replace(record, facts=facts, metrics={**record.metrics, "floor": floor})


def _verdict(record: TrialRecord, stored: Samples, baseline: Score, floor: float, error: float, task: str) -> Verdict:
    end = f".{task}" if task else ""
    score = Score(
        record.metrics[f"accuracy{end}"], record.metrics[f"accuracy_stderr{end}"], tuple(stored[f"accuracy{end}"]), {},
        _ids(stored, task), link=baseline.link, total=len(baseline.examples),
    )  # fmt: skip
    return decide(score, baseline, floor, error).verdict
