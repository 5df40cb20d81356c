"""What others measured, beside a candidate: who is behind one of them in everything need not be known any better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from objectives.measuring.footprint import Footprint
from objectives.metrics import at_pace, is_behind
from objectives.types import Gate, Measurement

_FORETOLD = 0.01
"""Of a peak, by how much a prediction may be too high."""


@dataclass(frozen=True)
class DominanceCheck:
    """``gate``: says who is; ``weights``: byte metrics of the candidate."""

    gate: Gate | None
    weights: Mapping[str, float]

    def stop_below(self, shapes: Footprint | None) -> float | None:
        """The speed-up below which the candidate is behind another in everything, going by its predicted memory."""
        if self.gate is None or shapes is None:
            return None
        known = {**self.weights, "peak_memory": shapes.peak * (1 - _FORETOLD)}
        rest = [
            (other["speedup"], {name: value for name, value in other.items() if name != "speedup"})
            for other in self.gate.incumbents
            if "speedup" in other
        ]
        return max((speedup for speedup, others in rest if is_behind(known, others)), default=None)

    def of(self, ran: Measurement) -> bool:
        """Whether another is at least as good in everything as what ``ran``."""
        if self.gate is None:
            return False
        found = {**self.weights, **at_pace(ran.metrics, ran.facts.timing, self.gate.pace)}
        return any(is_behind(found, other) for other in self.gate.incumbents)
