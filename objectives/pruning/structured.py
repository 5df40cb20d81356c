"""Structured pruning: FFN channels and KV groups go, and their consumers take over what they can.

A criterion gives every unit a removal curve; the allocation picks a point of each curve, so that the requested share
of all block parameters goes at the least cost: over the whole model where the criterion's costs can be compared between
layers, else block by block. Whole blocks may go first. Widths stay multiples of ``multiple_of``, since odd widths cost
what pruning gained (BERT fp32 at 30 %: 1.23x unrounded, 1.42x rounded).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, InstanceOf
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import Unsupported
from objectives.protocols.candidate import Pruner
from objectives.protocols.optional import Shaping
from objectives.pruning.allocation import Groups, choose, items_of, stack_of
from objectives.pruning.criteria.kfac import KFac
from objectives.pruning.criterion import Criterion
from objectives.pruning.depth import Depth
from objectives.pruning.layouts import LAYOUTS, LayoutName, LayoutRules
from objectives.settings import Count, Positive, Ratio, Share, Strength, asks_to_prune
from objectives.types import Note, NoteCode

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel
    from objectives.pruning.curve import Curve

_FAR_OFF = 0.01
"""The difference between the share asked for and the share removed from which a note says so."""


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Structured(Pruner, Shaping):
    """Remove ``ratio`` of the block parameters, from both kinds of unit or as the two other ratios say.

    ``attention_ratio``, ``ffn_ratio``: shares of what that kind's units hold instead of one common budget; with one of
    them given, ``ratio`` is for the other kind. ``depth_share``: how much of ``ratio`` goes first, as whole blocks;
    shares of a kind are then of what is left. ``depth``: how those blocks are found. ``criterion``: says what removing
    a set costs. ``allocation``: ``global`` or ``uniform`` (the same share in every block); null leaves it to the
    criterion. ``reconstruction`` ``none`` only cuts; ``ridge``: pull towards the original weights, relative to the
    activations' power. ``multiple_of``: FFN widths, in channels. ``layout``: which shapes may be left
    (:mod:`objectives.pruning.layouts`): ``free``; ``uniform``, equal in all blocks of a stack, as a plain config says;
    ``deci``, all heads and FFN widths in multiples of 256.

    Weights that no unit holds (the self-attention of T5) count in ``ratio``, not in the two others.
    """

    ratio: Annotated[Ratio, Strength(neutral=0.0, harder=+1)] = 0.0
    attention_ratio: Annotated[Ratio, Strength(neutral=0.0, harder=+1)] | None = None
    ffn_ratio: Annotated[Ratio, Strength(neutral=0.0, harder=+1)] | None = None
    depth_share: Share = 0.0
    depth: InstanceOf[Depth] = field(default_factory=Depth)
    criterion: InstanceOf[Criterion] = field(default_factory=KFac)
    allocation: Literal["global", "uniform"] | None = None
    reconstruction: Literal["least_squares", "none"] = "least_squares"
    ridge: Positive = 0.01
    multiple_of: Count = 32
    layout: LayoutName = "free"

    @override
    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        if not asks_to_prune(self):
            return
        depth, dense = self._depth, _parameters(model)
        depth.prune_(model, statistics)
        allocated = self._plan(statistics, depth)
        for curve, step in allocated:
            if step:
                self._cut_(model, curve, step, statistics)
        model.predicted_loss += self._loss(allocated)
        if self.attention_ratio is None and self.ffn_ratio is None:
            model.notes += self._off(1 - _parameters(model) / dense)

    @override
    def resize_fake_(self, model: LoadedModel, statistics: Statistics) -> None:
        from objectives.pruning.surgery import shrink_

        if not asks_to_prune(self):
            return
        self._depth.resize_fake_(model, statistics)
        for curve, step in self._plan(statistics, self._depth):
            if step:
                shrink_(model.block(curve.unit.block), curve.unit, len(curve.kept(step)))

    @override
    def predict(self, statistics: Statistics) -> float:
        """Sum the curves' losses at the steps that would be taken; NaN where the criterion does not measure nats."""
        if not asks_to_prune(self):
            return 0.0
        return self._depth.predict(statistics) + self._loss(self._plan(statistics, self._depth))

    def _off(self, removed: float) -> list[Note]:
        """Return a note where the steps of the layout make the share that went another one than was asked for."""
        if abs(removed - self.ratio) < _FAR_OFF:
            return []
        asked = f"{self.ratio:.1%} were asked for: layout={self.layout} has widths in steps of {self._step}"
        return [Note(NoteCode.OTHER, f"{removed:.1%} of the block parameters are gone, {asked}")]

    @property
    def _depth(self) -> Depth:
        return replace(self.depth, ratio=self.ratio * self.depth_share)

    def _plan(self, statistics: Statistics, depth: Depth) -> list[tuple[Curve, int]]:
        """Return the curve of every unit that ``depth`` leaves, with the step that is taken on it."""
        gone, _ = depth.removed(statistics)
        dense = {block.name: block.parameters for block in statistics.model.blocks()}
        weights = {name: count for name, count in dense.items() if name not in gone}
        ratio = max(
            0.0, 1 - (1 - self.ratio) * sum(dense.values()) / sum(weights.values())
        )  # relative to the blocks that stay
        curves = statistics.memoize((self.criterion, self._step), lambda: self._curves(statistics))
        left = [curve for curve in curves if curve.unit.block in weights]
        return self._allocated(left, ratio, weights, self._groups(statistics))

    @property
    @override
    def shapes_alike(self) -> bool:
        return not asks_to_prune(self) or self._layout.tied

    @property
    def _layout(self) -> LayoutRules:
        return LAYOUTS[self.layout]

    @property
    def _step(self) -> int:
        return self._layout.step(self.multiple_of)

    def _groups(self, statistics: Statistics) -> Groups:
        """Return the numbers of KV groups that a tied layout may leave, by stack."""
        from objectives.pruning.plain_heads import plain_groups

        return statistics.memoize(plain_groups, lambda: plain_groups(statistics.model)) if self._layout.tied else {}

    def _loss(self, allocated: Sequence[tuple[Curve, int]]) -> float:
        in_nats = self.criterion.allocation == "global"
        return sum(curve.losses[step] for curve, step in allocated) if in_nats else math.nan

    def _curves(self, statistics: Statistics) -> list[Curve]:
        from objectives.pruning.curve import steps
        from objectives.pruning.joint_costs import with_joint_costs

        model = statistics.model
        curves = [
            self.criterion.curve(unit, model, statistics, steps(unit, self._step))
            for block in model.blocks()
            for unit in block.units
        ]
        return with_joint_costs(curves, statistics) if self.criterion.allocation == "global" else curves

    def _allocated(
        self, curves: Sequence[Curve], ratio: float, weights: Mapping[str, int], groups: Groups
    ) -> list[tuple[Curve, int]]:
        """Return each curve with the step taken on it. ``weights``: by block, also those that no unit holds."""
        ratios = {"attention": self.attention_ratio, "ffn": self.ffn_ratio}
        if self.attention_ratio is None and self.ffn_ratio is None:
            return self._fill(curves, _Share("ratio", ratio), weights, groups)
        taken = []
        for kind, kind_ratio in ratios.items():
            of_kind = [curve for curve in curves if curve.unit.kind == kind]
            share = _Share("ratio", ratio) if kind_ratio is None else _Share(f"{kind}_ratio", kind_ratio)
            taken += self._fill(of_kind, share, _weights(of_kind), groups)
        return taken

    def _fill(
        self, curves: Sequence[Curve], share: _Share, weights: Mapping[str, int], groups: Groups
    ) -> list[tuple[Curve, int]]:
        comparable = (self.allocation or self.criterion.allocation) == "global"
        if comparable:
            places = {"the model": list(curves)}
        else:
            place = stack_of if self._layout.tied else _block_of
            places = {where: [one for one in curves if place(one) == where] for where in map(place, curves)}
        taken: list[tuple[Curve, int]] = []
        owed = 0.0  # the next place makes up for rounding in this one
        for where, held in places.items():
            blocks = weights if comparable else {curve.unit.block for curve in held}
            owed += share.ratio * sum(weights[block] for block in blocks)
            chosen = choose(items_of(held, self._layout, groups, comparable), owed)
            if chosen is None:
                raise Unsupported(
                    f"pruning.{share.key} {getattr(self, share.key)} cannot be met in {where}: "
                    f"{self._layout.stays.format(self._step)}"
                )
            owed -= sum(curve.gains[step] for curve, step in chosen)
            taken += chosen
        return taken

    def _cut_(self, model: LoadedModel, curve: Curve, step: int, statistics: Statistics) -> None:
        from objectives.pruning import reconstruction, surgery

        unit, kept = curve.unit, curve.kept(step)
        block = model.block(unit.block)
        channels = surgery.channels_of(kept, unit.width)
        linear = block.linear(unit.consumer)
        weight: Tensor = linear.weight[:, channels]
        bias: Tensor | None = linear.bias
        if self.reconstruction == "least_squares":
            moment = statistics.moments[unit.key]
            weight, bias = reconstruction.reconstruct(linear.weight, bias, moment, channels, self.ridge)
        surgery.set_inputs_(linear, weight, bias)
        surgery.keep_sets_(block, unit, kept)
        model.kept_inputs[unit.key] = channels
        for path, rows in surgery.kept_rows(unit, kept).items():
            model.kept_outputs[unit.block, path] = rows
        model.widths[unit.key] = len(kept)


@dataclass(frozen=True)
class _Share:
    """The share of some units that is to go, and the setting that asks for it."""

    key: str
    ratio: float


def _parameters(model: LoadedModel) -> int:
    return sum(block.parameters for block in model.blocks())


def _block_of(curve: Curve) -> str:
    return curve.unit.block


def _weights(curves: Sequence[Curve]) -> dict[str, int]:
    """Count, by block, the weights that the units of ``curves`` hold."""
    weights = Counter[str]()
    for curve in curves:
        weights[curve.unit.block] += curve.unit.parameters * curve.unit.count
    return weights
