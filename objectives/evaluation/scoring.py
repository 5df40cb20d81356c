"""The accuracy of recipes: each is scored once, as far as it has to be known, and never again.

The baseline is scored in full. A candidate that only has to reach a floor is scored example by example, in one random
order for all, until that is decided (:mod:`objectives.evaluation.sequential_test`). A later question goes on where the
last one stopped.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

from objectives.errors import NotFinite, Unsupported
from objectives.evaluation.floor_verdict import contest, decide, estimated, gains
from objectives.evaluation.model_pool import ModelPool
from objectives.evaluation.recipe import Recipe, recipe_of
from objectives.evaluation.sequential_test import Contest
from objectives.evaluation.stage_cache import packages_of
from objectives.protocols.candidate import Candidate
from objectives.protocols.task import PartiallyScorable, Task
from objectives.tasks.answers import scored, told
from objectives.tasks.finite import checked
from objectives.tasks.partial_scores import merged
from objectives.tasks.progress import followed
from objectives.tasks.setting_names import named_below
from objectives.tasks.several import bands_of, place_of
from objectives.types import Decision, Gate, Score


@dataclass(frozen=True)
class Scored:
    """A score with its cost.

    ``score``: of the examples seen; ``seconds``: that scoring took now; ``saved``: seconds that another process spent.
    """

    score: Score
    seconds: float
    saved: float


class Scorer:
    """Scores the recipes of one problem on ``task``; ``name``: that of the task, empty for the only one."""

    def __init__(self, pool: ModelPool, task: Task, name: str = "") -> None:
        self._pool, self._problem, self.task = pool, pool.problem, task
        self.bands, self._place = bands_of(task), place_of(name)
        self._scores: dict[Recipe, Score] = {}
        self._spent: dict[Recipe, float] = {}
        self._wrong: dict[Recipe, NotFinite | Unsupported] = {}

    def score(self, candidate: Candidate, gate: Gate | None = None) -> Scored:
        """Score a candidate's model on all examples, or with ``gate`` on as many as decide about its floor.

        Raises NotFinite where model or task give a value that is no number, Unsupported where they give no score.
        """
        recipe = recipe_of(candidate)
        known, saved = self._known(candidate)
        gate = None if self._pool.is_dense(candidate) else gate
        if known is not None and (known.total is None or self._is_enough(known, gate)):
            self._scores[recipe] = known
            return Scored(known, 0.0, saved)
        if recipe in self._wrong:  # whatever its workload
            raise self._wrong[recipe]
        runner = self._pool.runner(candidate)  # making it is another stage
        began = time.perf_counter()
        try:
            with named_below(self._place, self.task):
                score = checked(self._extended(candidate, known, gate), runner)
        except (NotFinite, Unsupported) as error:
            self._wrong[recipe] = error
            raise
        seconds = time.perf_counter() - began
        self._scores[recipe] = score
        self._spent[recipe] = self._spent.get(recipe, 0.0) + seconds
        self._keep(candidate, score)
        return Scored(score, seconds, saved)

    def baseline(self) -> Score:
        """Return the score of the dense model, in full."""
        return self.score(self._problem.baseline).score

    def estimated(self, score: Score) -> Score:
        """Return ``score`` with the accuracy that its examples, in pairs with the baseline's, make likely."""
        return estimated(score, self.baseline()) if score.total is not None else score

    def _extended(self, candidate: Candidate, known: Score | None, gate: Gate | None) -> Score:
        task = self.task
        if gate is not None and isinstance(task, PartiallyScorable):
            race = contest(self.baseline(), *self._asked(gate))
            if race is not None:
                return self._raced(task, candidate, known, race)
        return self._whole(candidate)

    def _whole(self, candidate: Candidate) -> Score:
        """Score all examples; the files that the baseline's scoring reads are noted."""
        task, runner = self.task, self._pool.runner(candidate)
        watched = self._pool.inputs.reads.watched() if self._pool.is_dense(candidate) else nullcontext()
        with watched, told(task, "evaluate"), followed():
            answer = task.evaluate(runner)
        return scored(task, answer)

    def _asked(self, gate: Gate) -> tuple[float, float]:
        return gate.floor, gate.error

    def _is_enough(self, known: Score, gate: Gate | None) -> bool:
        if not math.isfinite(known.accuracy):
            return True
        return gate is not None and self._settles(decide(known, self.baseline(), *self._asked(gate)).decision)

    def _settles(self, decision: Decision) -> bool:
        """Return whether nothing more is asked: a metric that has to stay in a band is one of all examples."""
        return decision is Decision.MISSED or (decision is not Decision.OPEN and not self.bands)

    def _raced(self, task: PartiallyScorable, candidate: Candidate, known: Score | None, race: Contest) -> Score:
        """Score on, in the common order, until the race is decided."""
        baseline = self.baseline()
        order = list(range(len(baseline.examples)))
        random.Random(0).shuffle(order)
        parts = []
        if known is not None:
            parts.append(known)
            race.see(gains(known, baseline))
        with told(task, "parts"), followed(may_end_early=True):
            left = order[0 if known is None else len(known.examples) :]
            for answer in task.parts(self._pool.runner(candidate), left):
                part = scored(task, answer)
                parts.append(part)
                if not all(map(math.isfinite, part.examples)):  # whatever the others are, the accuracy is no number
                    return replace(merged(parts), accuracy=math.nan, total=len(order))
                if self._settles(race.see(gains(part, baseline))):
                    break
        return _in_all(parts, baseline)

    # ---- the cache

    def _known(self, candidate: Candidate) -> tuple[Score | None, float]:
        """Return the score that is known already, and the seconds that another process spent on it."""
        recipe = recipe_of(candidate)
        if recipe in self._scores:
            return self._scores[recipe], 0.0
        cache, name = self._problem.cache, self._name(candidate)
        entry = None if cache is None or name is None else cache.get("score", name)
        if entry is None or not self._pool.inputs.reads.hold(entry.get("files", {})):
            return None, 0.0
        self._spent[recipe] = entry["seconds"]
        return _score_of(entry["score"]), entry["seconds"]

    def _keep(self, candidate: Candidate, score: Score) -> None:
        cache, name = self._problem.cache, self._name(candidate)
        numbers = (score.accuracy, score.stderr, *score.examples, *score.extra.values(), *score.replicates)
        if cache is None or name is None or not all(map(math.isfinite, numbers)):
            return
        entry = cache.get("score", name)
        files = {source.path: source.sha256 for source in self._pool.inputs.data}
        further = entry is not None and len(entry["score"]["examples"]) >= len(score.examples)
        if entry is None or not further or entry.get("files", {}) != files:  # another process may be further
            value = {"score": asdict(score), "seconds": self._spent[recipe_of(candidate)], "files": files}
            cache.put("score", name, value)

    def _name(self, candidate: Candidate) -> str | None:
        return self._pool.stages.name(candidate, "score", self.task, *packages_of(self.task))


def _in_all(parts: list[Score], baseline: Score) -> Score:
    """Merge the parts into one score; one of all examples gets the baseline's order, as if it had been made at once."""
    score = merged(parts)
    total = len(baseline.examples)
    if len(score.examples) < total:
        return replace(score, total=total)
    by_id = dict(zip(score.ids, score.examples))
    examples = tuple(by_id[name] for name in baseline.ids)
    return replace(score, examples=examples, ids=baseline.ids, total=None)


def _score_of(stored: Mapping[str, Any]) -> Score:
    lists = {name: tuple(stored.get(name, ())) for name in ("examples", "ids", "strata", "replicates")}
    sums = {name: tuple(pair) for name, pair in stored.get("sums", {}).items()}
    return Score(**{**stored, **lists, "sums": sums})
