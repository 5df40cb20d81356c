"""Removal curves that move together: the items of the knapsack that shares out how much every unit loses.

Where a layout asks for equal widths, the curves of all alike units of a stack become one: at each step all of them lose
as many sets, each its own cheapest ones, and the losses add up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from objectives.knapsack import Options, cheapest

if TYPE_CHECKING:
    from objectives.pruning.curve import Curve
    from objectives.pruning.layouts import LayoutRules

Groups = Mapping[str, frozenset[int]]
"""The numbers of KV groups that a stack may keep, by its path."""


@dataclass(frozen=True)
class Item:
    """Curves on which the same step is taken, with what each step costs; infinity where a step is not allowed."""

    curves: tuple[Curve, ...]
    losses: tuple[float, ...]

    @property
    def gains(self) -> tuple[int, ...]:
        """Return the number of weights that are gone at each step."""
        return tuple(map(sum, zip(*(curve.gains for curve in self.curves))))

    @property
    def reached(self) -> list[int]:
        """Return the gains of the steps that are allowed."""
        return [gain for gain, loss in zip(self.gains, self.losses) if math.isfinite(loss)]


def items_of(curves: Sequence[Curve], layout: LayoutRules, groups: Groups, comparable: bool) -> list[Item]:
    """Return the items that ``curves`` make under ``layout``; units that keep all that they have make none.

    ``groups``: of a tied layout, the numbers of KV groups that may stay. ``comparable``: whether costs of different
    blocks have one unit; where not, every block counts as much as any other.
    """
    held = [curve for curve in curves if layout.heads or curve.unit.kind == "ffn"]
    if not layout.tied:
        return [Item((curve,), curve.losses) for curve in held]
    scales = dict.fromkeys((curve.unit.block for curve in held), 1.0) if comparable else _shares(held)
    alike = defaultdict(list)
    for curve in held:
        alike[stack_of(curve), curve.unit.kind, curve.unit.count].append(curve)
    return [_tied(own, scales, groups.get(stack, frozenset())) for (stack, _, _), own in alike.items()]


def stack_of(curve: Curve) -> str:
    """Return the path of the stack that the unit of ``curve`` lies in."""
    return curve.unit.block.rpartition(".")[0]


def choose(items: Sequence[Item], budget: float) -> list[tuple[Curve, int]] | None:
    """Return every curve with the step taken on it, so that ``budget`` weights go at the least cost.

    Within half of the finest step, or the nearest sum above; None where the items hold less.
    """
    movable = [item for item in items if len(item.reached) > 1]  # not a single KV group, as in Gemma
    finest = min((item.reached[-1] / (len(item.reached) - 1) for item in movable), default=0.0)
    steps = cheapest([Options(item.gains, item.losses) for item in movable], budget, finest / 2)
    if steps is None:
        return None
    return [(curve, step) for item, step in zip(movable, steps) for curve in item.curves]


def _tied(curves: Sequence[Curve], scales: Mapping[str, float], groups: frozenset[int]) -> Item:
    unit = curves[0].unit
    losses = [
        math.fsum(scales[curve.unit.block] * curve.losses[step] for curve in curves)
        for step in range(len(curves[0].removed))
    ]
    if unit.kind == "attention":
        kept = [unit.count - removed for removed in curves[0].removed]
        losses = [loss if not step or kept[step] in groups else math.inf for step, loss in enumerate(losses)]
    return Item(tuple(curves), tuple(losses))


def _shares(curves: Sequence[Curve]) -> dict[str, float]:
    """Return, by block, one over what losing all costs there."""
    whole: dict[str, float] = defaultdict(float)
    for curve in curves:
        whole[curve.unit.block] += curve.losses[-1]
    return {block: 1 / loss if loss > 0 else 1.0 for block, loss in whole.items()}
