"""Decides whether a trial keeps an accuracy floor, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any, Literal

from objectives.evaluation.floor_verdict import decide, exact_decision
from objectives.types import Decision, Note, NoteCode, Score, Verdict
from search.records.trial import TrialRecord

Certainty = Literal["certain", "likely", "undecided"]
Cell = frozenset[tuple[str, object]]

LIKELY = 0.95


def is_scored(record: TrialRecord) -> bool:
    """Return whether a trial was measured, accuracy included; dominated trials may have no accuracy."""
    return record.state == "complete" and "accuracy" in record.metrics


def verdict_of(record: TrialRecord, floor: float) -> Verdict:
    """Return whether a scored trial reaches ``floor``.

    For a floor other than the one that it was raced against, only a full score decides; otherwise the answer is open.
    """
    verdict = record.facts.verdict
    if verdict is None or verdict.method == "exact":
        return Verdict(exact_decision(record.metrics["accuracy"], floor))
    return verdict if record.metrics.get("floor") == floor else replace(verdict, decision=Decision.OPEN)


def is_feasible(record: TrialRecord, floor: float) -> bool:
    """Return whether a trial keeps the floor; where the verdict is open, the estimate decides."""
    decision = verdict_of(record, floor).decision
    if decision is Decision.OPEN:
        decision = exact_decision(record.metrics["accuracy"], floor)
    return decision is Decision.REACHED


def is_open(record: TrialRecord, floor: float) -> bool:
    """Return whether the examples that were scored leave the verdict open."""
    return verdict_of(record, floor).decision is Decision.OPEN


def certainty_of(record: TrialRecord, floor: float) -> Certainty:
    """Return how sure it is that a member keeps the floor.

    ``certain``: by all examples, or by a race at the error that the study allows; ``likely``: the race is open, but a
    single look at the estimate and its standard error says so with at least ``LIKELY``; ``undecided``: neither.
    """
    if not is_open(record, floor):
        return "certain"
    error = record.metrics["accuracy_stderr"]
    away = record.metrics["accuracy"] - floor
    return "likely" if error > 0 and NormalDist().cdf(away / error) >= LIKELY else "undecided"


def decided_again(
    records: Sequence[TrialRecord], samples: Mapping[int, Mapping[str, Any]], floor: float, error: float
) -> list[TrialRecord]:
    """Return the records with verdicts for ``floor``, decided from the stored examples.

    ``samples``: those examples, by trial number; ``error``: the chance of a wrong verdict that one recipe may have. A
    trial whose examples are not stored keeps its verdict, which holds for its own floor.
    """
    scored = {number for number, stored in samples.items() if stored.get("accuracy") and stored.get("ids")}
    start = next((record for record in records if record.is_baseline and record.number in scored), None)
    if start is None:
        return with_scores_of_recipe(records)
    stored = samples[start.number]
    baseline = Score(
        start.metrics["accuracy"], start.metrics["accuracy_stderr"], tuple(stored["accuracy"]), {},
        tuple(stored["ids"]), link=start.facts.link, replicates=tuple(stored.get("replicates", ())),
    )  # fmt: skip
    result, scorers = [], _scorers(records)
    for record, shared in zip(records, with_scores_of_recipe(records)):
        scorer = record if shared is record else scorers[recipe_key(record)]
        source = scorer.number if scorer.cached_from is None else scorer.cached_from
        result.append(_decided(shared, samples[source], baseline, floor, error) if source in scored else shared)
    return result


def with_scores_of_recipe(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the records; those that were not scored have the score of another trial of their recipe.

    A record whose cell was scored in a later or earlier trial of the same cell stays without a score.
    """
    scorers, result = _scorers(records), []
    scored_cells = {_cell(record) for record in records if is_scored(record)}
    for record in records:
        bare = record.state == "complete" and not is_scored(record) and _cell(record) not in scored_cells
        scorer = scorers.get(recipe_key(record)) if bare else None
        result.append(record if scorer is None else _scored_as(record, scorer))
    return result


def _scorers(records: Sequence[TrialRecord]) -> dict[Cell, TrialRecord]:
    """Return, by recipe, the trial that scored it on the most examples, of equals the latest."""
    scorers: dict[Cell, TrialRecord] = {}
    for record in records:
        if is_scored(record):
            before = scorers.get(recipe_key(record))
            if before is None or record.metrics.get("examples", 0.0) >= before.metrics.get("examples", 0.0):
                scorers[recipe_key(record)] = record
    return scorers


def _cell(record: TrialRecord) -> Cell:
    return frozenset(record.params.items())


def recipe_key(record: TrialRecord) -> Cell:
    """Return the settings without the workload's; trials with the same ones are of one recipe."""
    return frozenset((path, value) for path, value in record.params.items() if not path.startswith("workload."))


def _scored_as(record: TrialRecord, other: TrialRecord) -> TrialRecord:
    """Return a record that was not scored with the score of another trial of its recipe."""
    metrics = {
        name: value for name, value in other.metrics.items() if name.startswith(("accuracy", "examples", "floor"))
    }
    facts = replace(record.facts, verdict=other.facts.verdict, link=other.facts.link)
    kept = (note for note in record.notes if note.code is not NoteCode.NOT_SCORED)
    notes = (*kept, Note(NoteCode.SCORED_ELSEWHERE, f"scored as trial {other.number}"))
    return replace(record, metrics={**record.metrics, **metrics}, facts=facts, notes=notes)


def _decided(
    record: TrialRecord, samples: Mapping[str, Any], baseline: Score, floor: float, error: float
) -> TrialRecord:
    verdict = record.facts.verdict
    if verdict is None or verdict.method == "exact" or record.metrics.get("floor") == floor:
        return record
    score = Score(
        record.metrics["accuracy"], record.metrics["accuracy_stderr"], tuple(samples["accuracy"]), {},
        tuple(samples["ids"]), link=baseline.link, total=len(baseline.examples),
    )  # fmt: skip
    decided = decide(score, baseline, floor, error)
    facts = replace(record.facts, verdict=decided.verdict)
    return replace(record, facts=facts, metrics={**record.metrics, "floor": floor})
