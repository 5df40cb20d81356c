"""Predicts what compression costs in log-loss, before a candidate is built."""

from __future__ import annotations

import math

from objectives.errors import Unsupported
from objectives.evaluation.model_pool import ModelPool
from objectives.protocols.candidate import Candidate, Pruner, Quantizer


class LossPredictor:
    """Adds up what the parts of a candidate predict; each pruner and each quantiser predicts once."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._losses: dict[Pruner | Quantizer, float] = {}

    def predict(self, candidate: Candidate) -> float:
        """Predict the log-loss per token that a candidate costs; NaN where one cannot tell.

        Raises Unsupported for a candidate that cannot be built.
        """
        trained = candidate.recovery.trains and candidate.pruning != self._pool.problem.baseline.pruning
        if trained or not candidate.quantization.predicts:
            return math.nan
        for part in (candidate.pruning, candidate.quantization):
            if part not in self._losses:
                self._losses[part] = part.predict(self._pool.statistics)
        return self._losses[candidate.pruning] + self._losses[candidate.quantization]

    def known_or_predicted(self, candidate: Candidate) -> float:
        """Return the prediction from the cache, else predict it; NaN also where the candidate cannot be built."""
        stages = self._pool.stages
        name = stages.name(candidate, "predict")
        known = stages.get("predict", name)
        if known is not None:
            return math.nan if known["loss"] is None else float(known["loss"])
        try:
            loss = self.predict(candidate)
        except Unsupported:
            loss = math.nan
        stages.put("predict", name, {"loss": loss if math.isfinite(loss) else None})
        return loss
