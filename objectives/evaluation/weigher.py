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
    """The byte metrics of a model and its notes; ``simulated``: some weights are stored in no fewer bits."""

    metrics: Mapping[str, float]
    notes: tuple[Note, ...]
    simulated: bool


class Weigher:
    """Weighs the recipes of one problem."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._weighed: dict[Recipe, Weighed] = {}

    def weigh(self, candidate: Candidate) -> Weighed:
        """Return the byte metrics and notes of the candidate's model, from the cache where they are known there."""
        recipe = recipe_of(candidate)
        if recipe not in self._weighed:
            self._weighed[recipe] = self._kept_weights(candidate) or self._new_weights(candidate)
        return self._weighed[recipe]

    def _kept_weights(self, candidate: Candidate) -> Weighed | None:
        kept = self._pool.stages.get("weigh", self._pool.stages.name(candidate, "weigh"))
        return None if kept is None else Weighed(**{**kept, "notes": notes_of(kept["notes"])})

    def _new_weights(self, candidate: Candidate) -> Weighed:
        runner = self._pool.runner(candidate)
        metrics = dict(runner.weights(block_weights(self._pool.source)))
        if runner.simulated:
            metrics = {
                name: value for name, value in metrics.items() if "_bytes" not in name and name != "effective_bits"
            }
        if not math.isnan(runner.predicted_loss):
            metrics["predicted_loss"] = runner.predicted_loss
        weighed = Weighed(metrics, notes_of(runner.notes), runner.simulated)
        kept = {**asdict(weighed), "notes": stored_notes(weighed.notes)}
        self._pool.stages.put("weigh", self._pool.stages.name(candidate, "weigh"), kept)
        return weighed
