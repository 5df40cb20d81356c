"""Scores a candidate on the task of a problem, or on each of its tasks, and judges what is asked of it.

Several tasks are scored in their order, each as far as its own floor asks. One that is missed ends it: the tasks after
it are not scored. A floor on their weighted mean asks for all of them in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from objectives.evaluation.floor_verdict import decide, exact_decision, joined
from objectives.evaluation.model_pool import ModelPool
from objectives.evaluation.scoring import Scorer
from objectives.protocols.candidate import Candidate
from objectives.tasks.paired import follows_from_examples, paired_difference
from objectives.tasks.several import combined, numbered, tasks_of, weighted_mean, weights_of
from objectives.types import Decision, Facts, Gate, Note, NoteCode, Score, Verdict


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of a trial, as metrics, facts, samples and notes, with the seconds that it took and was spared."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    seconds: float = 0.0
    saved: float = 0.0


UNSCORED = Accuracy(
    facts=Facts(verdict=Verdict(Decision.UNSCORED)),
    notes=(Note(NoteCode.NOT_SCORED, "not scored: another is at least as good in every objective"),),
)
"""The accuracy of a candidate that nobody asked for."""


class TaskScores:
    """The scores of the candidates of one problem, on all of its tasks."""

    def __init__(self, pool: ModelPool) -> None:
        task = pool.problem.task
        self._scorers = {name: Scorer(pool, each, name) for name, each in tasks_of(task).items()}
        self._weights = weights_of(task)

    def whole(self, candidate: Candidate) -> Score:
        """Return the score on all examples; of several tasks, that of their weighted mean."""
        scores = {name: scorer.score(candidate).score for name, scorer in self._scorers.items()}
        return scores[""] if "" in scores else combined(scores, self._weights)

    def accuracy(self, candidate: Candidate, gate: Gate | None) -> Accuracy:
        """Score a candidate as far as ``gate`` asks, in full without one.

        Raises NotFinite where model or task give a value that is no number, Unsupported where they give no score.
        """
        if "" in self._scorers:
            return _judged(self._scorers[""], candidate, gate, gate)
        found: dict[str, Accuracy] = {}
        for name, scorer in self._scorers.items():
            own = None if gate is None else replace(gate, floor=gate.floors[name])
            found[name] = _judged(scorer, candidate, None if gate is None or gate.floor else own, own)
            if found[name].facts.is_missed:
                break
        return self._joined(found, gate)

    def _joined(self, found: Mapping[str, Accuracy], gate: Gate | None) -> Accuracy:
        """Return the accuracies of all tasks as one; the weighted mean where every task was scored."""
        metrics = {f"{key}.{name}": value for name, each in found.items() for key, value in each.metrics.items()}
        metrics["examples"] = math.fsum(each.metrics["examples"] for each in found.values())
        verdicts = [verdict for each in found.values() if (verdict := each.facts.verdict) is not None]
        if len(found) == len(self._scorers):
            metrics |= weighted_mean({name: each.metrics for name, each in found.items()}, self._weights)
            if gate is not None and gate.floor:
                verdicts.append(Verdict(exact_decision(metrics["accuracy"], gate.floor)))
        return Accuracy(
            metrics,
            Facts(
                verdict=joined(verdicts) if verdicts else None,
                tasks={name: Facts(verdict=each.facts.verdict, link=each.facts.link) for name, each in found.items()},
            ),
            {f"{key}.{name}": values for name, each in found.items() for key, values in each.samples.items()},
            numbered({name: (each.ids, len(each.samples["accuracy"])) for name, each in found.items()}),
            seconds=math.fsum(each.seconds for each in found.values()),
            saved=math.fsum(each.saved for each in found.values()),
        )


def _judged(scorer: Scorer, candidate: Candidate, race: Gate | None, gate: Gate | None) -> Accuracy:
    """Return the accuracy on one task, scored as far as ``race`` asks, with the verdict on the floor of ``gate``."""
    scored = scorer.score(candidate, race)
    score = scorer.estimated(scored.score)
    metrics, facts = _metrics(scorer, score), Facts(link=score.link)
    if gate is not None and math.isfinite(score.accuracy):
        judged = decide(scored.score, scorer.baseline(), gate.floor, gate.error)
        if math.isfinite(judged.low):
            metrics["accuracy_interval.low"], metrics["accuracy_interval.high"] = judged.low, judged.high
        facts = replace(facts, verdict=_banded(judged.verdict, scorer, score))
    kept = {"accuracy": scored.score.examples}
    if scored.score.replicates:
        kept["replicates"] = scored.score.replicates
    return Accuracy(metrics, facts, kept, scored.score.ids, (), scored.seconds, scored.saved)


def _metrics(scorer: Scorer, score: Score) -> dict[str, float]:
    """Return the accuracy, its difference to the baseline's, and what else was found on all examples."""
    metrics = {"accuracy": score.accuracy, "accuracy_stderr": score.stderr}
    metrics["examples"] = float(len(score.examples))
    if score.chance is not None:
        metrics["chance"] = score.chance
    if score.total is not None:
        return metrics
    metrics |= score.extra
    for name, (least, most) in scorer.bands.items():
        metrics |= {f"{name}.least": least, f"{name}.most": most}
    if not follows_from_examples(score):
        metrics["accuracy_replicates"] = float(len(score.replicates))
    difference = paired_difference(score, scorer.baseline())
    if difference is not None:
        metrics["accuracy_difference"] = difference.value
        metrics["accuracy_difference.low"] = difference.low
        metrics["accuracy_difference.high"] = difference.high
    return metrics


def _banded(verdict: Verdict, scorer: Scorer, score: Score) -> Verdict:
    """Return ``verdict``, or a miss where a metric of all examples lies outside of its band."""
    if score.total is not None:
        return verdict
    within = all(least <= score.extra[name] <= most for name, (least, most) in scorer.bands.items())
    return verdict if within else Verdict(Decision.MISSED)
