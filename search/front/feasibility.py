"""Decides whether a trial keeps an accuracy floor, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Literal

from objectives.evaluation.floor_verdict import joined
from objectives.types import Decision, Note, NoteCode, Verdict
from search.front.asked import Asked, accuracies_of, asked_of, bands_of, metrics_of_bands
from search.front.metric_limits import keeps_limits
from search.records.trial import TrialRecord

Certainty = Literal["certain", "likely", "undecided"]
Cell = frozenset[tuple[str, object]]

_FROM_SURE: Sequence[Certainty] = ("certain", "likely", "undecided")
LIKELY = 0.95
_OF_SCORES = ("accuracy", "examples", "floor")
"""The beginnings of the names of metrics that a trial takes over from another trial of its recipe, beside bands."""


def is_scored(record: TrialRecord) -> bool:
    """Return whether a trial was measured, accuracy included; dominated trials may have no accuracy.

    Of several tasks, one accuracy is enough: where it is missed, the tasks after it have none.
    """
    return record.state == "complete" and bool(accuracies_of(record.metrics))


def verdict_of(record: TrialRecord, floor: float) -> Verdict:
    """Return whether a scored trial reaches ``floor``, the floors of its tasks, and its bands.

    It is a verdict on the recipe. Limits are kept or not by its cells, one by one.
    """
    if not all(band.is_kept for band in bands_of(record.metrics)):
        return Verdict(Decision.MISSED)
    return joined(each.verdict for each in asked_of(record, floor))


def is_feasible(record: TrialRecord, floor: float) -> bool:
    """Return whether a trial keeps all that is asked; where a verdict is open, the estimate decides."""
    kept = keeps_limits(record.metrics) and all(each.is_kept for each in asked_of(record, floor))
    return kept and all(band.is_kept for band in bands_of(record.metrics))


def is_open(record: TrialRecord, floor: float) -> bool:
    """Return whether the examples that were scored leave the verdict open."""
    return verdict_of(record, floor).decision is Decision.OPEN


def certainty_of(record: TrialRecord, floor: float) -> Certainty:
    """Return how sure it is that a member keeps all floors: as sure as the least sure of them.

    ``certain``: by all examples, or by a race at the error that the study allows; ``likely``: the race is open, but a
    single look at the estimate and its standard error says so with at least ``LIKELY``; ``undecided``: neither.
    """
    return max((certainty(each) for each in asked_of(record, floor)), key=_FROM_SURE.index)


def certainty(asked: Asked) -> Certainty:
    """Return how sure it is that one floor is kept."""
    if asked.verdict.decision is not Decision.OPEN:
        return "certain"
    return "likely" if asked.stderr > 0 and NormalDist().cdf(-asked.short / asked.stderr) >= LIKELY else "undecided"


def with_scores_of_recipe(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the records; those that were not scored have the score of another trial of their recipe.

    A record whose cell was scored in a later or earlier trial of the same cell stays without a score.
    """
    scorers, result = scorers_of(records), []
    scored_cells = {_cell(record) for record in records if is_scored(record)}
    for record in records:
        bare = record.state == "complete" and not is_scored(record) and _cell(record) not in scored_cells
        scorer = scorers.get(recipe_key(record)) if bare else None
        result.append(record if scorer is None else _scored_as(record, scorer))
    return result


def scorers_of(records: Sequence[TrialRecord]) -> dict[Cell, TrialRecord]:
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
    banded = metrics_of_bands(other.metrics)
    taken = (name for name in other.metrics if name in banded or name.startswith(_OF_SCORES))
    metrics = {name: other.metrics[name] for name in taken}
    told = other.facts
    facts = replace(record.facts, verdict=told.verdict, link=told.link, tasks=told.tasks)
    kept = (note for note in record.notes if note.code is not NoteCode.NOT_SCORED)
    notes = (*kept, Note(NoteCode.SCORED_ELSEWHERE, f"scored as trial {other.number}"))
    return replace(record, metrics={**record.metrics, **metrics}, facts=facts, notes=notes)
