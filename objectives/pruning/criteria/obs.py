"""Optimal brain surgeon: the error a set leaves in the consumer's output once the others have taken over what they can.

What K-FAC is without gradients: every output weighs the same. See :mod:`objectives.pruning.removal`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID, Positive

if TYPE_CHECKING:
    from objectives.blocks import Unit
    from objectives.calibration import Statistics
    from objectives.models import LoadedModel
    from objectives.pruning.curve import Curve


@settings(frozen=True, kw_only=True, config=FORBID)
class Obs:
    """``damping``: added to the diagonal of H, relative to its mean."""

    damping: Positive = 0.01

    @property
    def allocation(self) -> Literal["global", "uniform"]:
        """In squares of the residual stream: comparable inside a block, not between depths."""
        return "uniform"

    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        """See ``objectives.types.Criterion``."""
        from objectives.pruning.removal import removal_curve

        weight = model.block(unit.block).linear(unit.consumer).weight.float()
        felt = weight * statistics.moments[unit.key].share ** 0.5  # losses per token of the text
        return removal_curve(unit, model, statistics, felt, removed, self.damping)
