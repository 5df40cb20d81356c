"""Whether a trial keeps an accuracy floor, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

from objectives.types import Score
from objectives.verdict import judge
from search.records import TrialRecord

Certainty = Literal["certain", "likely", "undecided"]
Cell = frozenset[tuple[str, object]]

LIKELY = 0.95


@dataclass(frozen=True)
class Decision:
    """``decision``: ``reached``, ``missed`` or ``open``; ``exact``: all examples were scored."""

    decision: str
    exact: bool


def is_scored(record: TrialRecord) -> bool:
    """Whether it was measured, accuracy included: what is behind another in every objective may go without."""
    return record.state == "complete" and "accuracy" in record.metrics


def decision_of(record: TrialRecord, floor: float) -> Decision:
    """Of a scored record. Of another floor than it was judged by, only a score of all examples decides."""
    verdict = record.facts.get("verdict")
    by = record.facts.get("verdict_by", "exact")
    if verdict is not None and by != "exact" and record.metrics.get("floor") == floor:
        return Decision(verdict, False)
    if verdict is not None and by != "exact":
        return Decision("open", False)
    return Decision("reached" if record.metrics["accuracy"] >= floor else "missed", True)


def is_feasible(record: TrialRecord, floor: float) -> bool:
    """Whether it keeps the floor; one that is not decided, by the estimate."""
    found = decision_of(record, floor).decision
    return found == "reached" or (found == "open" and record.metrics["accuracy"] >= floor)


def is_open(record: TrialRecord, floor: float) -> bool:
    """Whether the examples that were scored do not decide."""
    return decision_of(record, floor).decision == "open"


def certainty_of(record: TrialRecord, floor: float) -> Certainty:
    """How sure it is that a member keeps the floor.

    ``certain``: by all examples, or by a race at the error that the study allows; ``likely``: not decided, but so by
    the estimate and its standard error, as if it had been looked at once; ``undecided``: neither.
    """
    if decision_of(record, floor).decision != "open":
        return "certain"
    error = record.metrics["accuracy_stderr"]
    away = record.metrics["accuracy"] - floor
    return "likely" if error > 0 and NormalDist().cdf(away / error) >= LIKELY else "undecided"


def judged_again(
    records: Sequence[TrialRecord], samples: Mapping[int, Mapping[str, Any]], floor: float, error: float
) -> list[TrialRecord]:
    """The records with verdicts for ``floor``, from the examples that are stored; ``samples``: by trial number.

    ``error``: of one recipe. A trial whose examples are not stored keeps its verdict, which holds for its own floor.
    """
    scored = {number for number, stored in samples.items() if stored.get("accuracy") and stored.get("ids")}
    start = next((record for record in records if record.is_baseline and record.number in scored), None)
    if start is None:
        return with_scores_of_recipe(records)
    stored = samples[start.number]
    link: Any = start.facts.get("link", "mean")
    baseline = Score(
        start.metrics["accuracy"], start.metrics["accuracy_stderr"], tuple(stored["accuracy"]), {},
        tuple(stored["ids"]), link=link,
    )  # fmt: skip
    found, scorers = [], _scorers(records)
    for record, shared in zip(records, with_scores_of_recipe(records)):
        scorer = record if shared is record else scorers[recipe_key(record)]
        source = scorer.number if scorer.cached_from is None else scorer.cached_from
        found.append(_judged(shared, samples[source], baseline, floor, error) if source in scored else shared)
    return found


def with_scores_of_recipe(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The records, those that were not scored with what another trial of their recipe found.

    A cell that was tried again until it was scored is left to that trial.
    """
    scorers, found = _scorers(records), []
    own = {_cell(record) for record in records if is_scored(record)}
    for record in records:
        bare = record.state == "complete" and not is_scored(record) and _cell(record) not in own
        scorer = scorers.get(recipe_key(record)) if bare else None
        found.append(record if scorer is None else _scored_as(record, scorer))
    return found


def _scorers(records: Sequence[TrialRecord]) -> dict[Cell, TrialRecord]:
    """By recipe, the trial that scored it on the most examples, of equals the latest."""
    found: dict[Cell, TrialRecord] = {}
    for record in records:
        if is_scored(record):
            before = found.get(recipe_key(record))
            if before is None or record.metrics.get("examples", 0.0) >= before.metrics.get("examples", 0.0):
                found[recipe_key(record)] = record
    return found


def _cell(record: TrialRecord) -> Cell:
    return frozenset(record.params.items())


def recipe_key(record: TrialRecord) -> Cell:
    """Return what makes two trials one recipe: their settings without the workload's."""
    return frozenset((path, value) for path, value in record.params.items() if not path.startswith("workload."))


def _scored_as(record: TrialRecord, other: TrialRecord) -> TrialRecord:
    """One that was not scored, with what another trial of its recipe found."""
    metrics = {
        name: value for name, value in other.metrics.items() if name.startswith(("accuracy", "examples", "floor"))
    }
    facts = {name: text for name, text in other.facts.items() if name.startswith("verdict") or name == "link"}
    notes = (*(note for note in record.notes if not note.startswith("not scored")), f"scored as trial {other.number}")
    return replace(record, metrics={**record.metrics, **metrics}, facts={**record.facts, **facts}, notes=notes)


def _judged(
    record: TrialRecord, samples: Mapping[str, Any], baseline: Score, floor: float, error: float
) -> TrialRecord:
    if record.facts.get("verdict_by", "exact") == "exact" or record.metrics.get("floor") == floor:
        return record
    score = Score(
        record.metrics["accuracy"], record.metrics["accuracy_stderr"], tuple(samples["accuracy"]), {},
        tuple(samples["ids"]), link=baseline.link, total=len(baseline.examples),
    )  # fmt: skip
    found = judge(score, baseline, floor, error)
    facts = {**record.facts, "verdict": found.decision, "verdict_by": found.method}
    return replace(record, facts=facts, metrics={**record.metrics, "floor": floor})
