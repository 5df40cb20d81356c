"""Removal curves: in which order a unit would lose its sets, and what every step costs.

A criterion gives one curve per unit. All ratios are read off the same curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.models.blocks import Unit


@dataclass(frozen=True)
class Curve:
    """``order``: sets, first to go first; ``losses[i]``: total cost once the first ``removed[i]`` are gone."""

    unit: Unit
    order: Tensor
    removed: tuple[int, ...]
    losses: tuple[float, ...]

    @property
    def gains(self) -> tuple[int, ...]:
        """Weights that each step has removed."""
        return tuple(count * self.unit.parameters for count in self.removed)

    def kept(self, step: int) -> Tensor:
        """The sets that stay at a step, ascending."""
        stays = torch.ones(self.unit.count, dtype=torch.bool)
        stays[self.order[: self.removed[step]]] = False
        return stays.nonzero().squeeze(1)


def steps(unit: Unit, multiple_of: int) -> tuple[int, ...]:
    """Numbers of sets that may be removed: FFN widths become multiples of ``multiple_of``; one step stays."""
    step = min(multiple_of if unit.kind == "ffn" else 1, unit.count)
    return (0, *(unit.count - kept for kept in range(unit.count // step * step, 0, -step) if kept < unit.count))


def curve_of_scores(unit: Unit, scores: Tensor, removed: tuple[int, ...]) -> Curve:
    """The curve of independent ``scores`` [count]: cheapest first, costs add up."""
    ascending, order = scores.double().sort(stable=True)
    total = torch.cat([ascending.new_zeros(1), ascending.cumsum(dim=0)])
    return Curve(unit, order, removed, tuple(total[list(removed)].tolist()))
