"""Bytes and notes of compressed models: each recipe is weighed once, whatever the workload."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from objectives.evaluation.model_pool import ModelPool
from objectives.evaluation.recipe import Recipe, recipe_of
from objectives.models.notes import notes_of, stored_notes
from objectives.packing.weighing import block_weights
from objectives.protocols.candidate import Candidate
from objectives.types import Note


@dataclass(frozen=True)
class Weighed:
    """What a model is, apart from its speed and accuracy."""

    metrics: Mapping[str, float]
    notes: tuple[Note, ...]
    simulated: bool


class Weigher:
    """Weighs the recipes of one problem."""

    def __init__(self, recipes: ModelPool) -> None:
        self._recipes = recipes
        self._weighed: dict[Recipe, Weighed] = {}

    def weigh(self, candidate: Candidate) -> Weighed:
        """Return what the candidate's model weighs, from the cache where it is known there."""
        recipe = recipe_of(candidate)
        if recipe not in self._weighed:
            self._weighed[recipe] = self._kept_weights(candidate) or self._new_weights(candidate)
        return self._weighed[recipe]

    def _kept_weights(self, candidate: Candidate) -> Weighed | None:
        found = self._recipes.stages.get("weigh", self._recipes.stages.name(candidate, "weigh"))
        return None if found is None else Weighed(**{**found, "notes": notes_of(found["notes"])})

    def _new_weights(self, candidate: Candidate) -> Weighed:
        runner = self._recipes.runner(candidate)
        metrics = dict(runner.weights(block_weights(self._recipes.source)))
        if runner.simulated:
            metrics = {
                name: value for name, value in metrics.items() if not name.endswith(("_bytes", "effective_bits"))
            }
        if not math.isnan(runner.predicted_loss):
            metrics["predicted_loss"] = runner.predicted_loss
        found = Weighed(metrics, notes_of(runner.notes), runner.simulated)
        kept = {**asdict(found), "notes": stored_notes(found.notes)}
        self._recipes.stages.put("weigh", self._recipes.stages.name(candidate, "weigh"), kept)
        return found
