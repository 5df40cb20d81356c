"""Decides whether a candidate is dominated by a front member, so that it need not be measured further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from objectives.measuring.footprint import Footprint
from objectives.metrics import at_pace, is_dominated
from objectives.types import Gate, Measurement

_FORETOLD = 0.01
"""Share of a predicted peak by which the prediction may be too high."""


@dataclass(frozen=True)
class DominanceCheck:
    """A comparison of one candidate with the incumbents of ``gate``; ``weights``: the candidate's byte metrics.

    Without a gate nothing is dominated.
    """

    gate: Gate | None
    weights: Mapping[str, float]

    def stop_below(self, shapes: Footprint | None) -> float | None:
        """Return the speed-up below which an incumbent dominates the candidate, going by its predicted memory.

        None where there is no prediction, or where no incumbent is as good in everything but speed.
        """
        if self.gate is None or shapes is None:
            return None
        known = {**self.weights, "peak_memory": shapes.peak * (1 - _FORETOLD)}
        rest = [
            (other["speedup"], {name: value for name, value in other.items() if name != "speedup"})
            for other in self.gate.incumbents
            if "speedup" in other
        ]
        return max((speedup for speedup, others in rest if is_dominated(known, others)), default=None)

    def dominate(self, ran: Measurement) -> bool:
        """Return whether an incumbent is at least as good as the measured run ``ran`` in everything it names."""
        if self.gate is None:
            return False
        metrics = {**self.weights, **at_pace(ran.metrics, ran.facts.timing, self.gate.pace)}
        return any(is_dominated(metrics, other) for other in self.gate.incumbents)
