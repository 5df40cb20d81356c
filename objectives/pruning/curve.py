"""Removal curves: the order in which a unit loses its sets, and the cost of every step.

A criterion gives one curve per unit. All ratios are read off the same curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.models.blocks import Unit


@dataclass(frozen=True)
class Curve:
    """The removal curve of ``unit``.

    ``order``: sets, first to go first; ``losses[i]``: total cost once the first ``removed[i]`` are gone.
    """

    unit: Unit
    order: Tensor
    removed: tuple[int, ...]
    losses: tuple[float, ...]

    @property
    def gains(self) -> tuple[int, ...]:
        """Return the number of weights that are gone at each step."""
        return tuple(count * self.unit.parameters for count in self.removed)

    def kept(self, step: int) -> Tensor:
        """Return the sets that stay at a step, ascending."""
        stays = torch.ones(self.unit.count, dtype=torch.bool)
        stays[self.order[: self.removed[step]]] = False
        return stays.nonzero().squeeze(1)


def steps(unit: Unit, multiple_of: int) -> tuple[int, ...]:
    """Return the numbers of sets that may be removed: FFN widths are multiples of ``multiple_of``, and never 0."""
    step = min(multiple_of if unit.kind == "ffn" else 1, unit.count)
    return (0, *(unit.count - kept for kept in range(unit.count // step * step, 0, -step) if kept < unit.count))


def curve_of_scores(unit: Unit, scores: Tensor, removed: tuple[int, ...]) -> Curve:
    """Return the curve of independent ``scores`` [count]: the cheapest set goes first, costs add up."""
    ascending, order = scores.double().sort(stable=True)
    total = torch.cat([ascending.new_zeros(1), ascending.cumsum(dim=0)])
    return Curve(unit, order, removed, tuple(total[list(removed)].tolist()))
