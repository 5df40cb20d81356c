"""Optimal brain surgeon: the error a set leaves in the consumer's output once the others have taken over what they can.

What K-FAC is without gradients: every output weighs the same. See :mod:`objectives.pruning.removal`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.pruning.criteria.settings import BrainSurgeon
from objectives.settings import FORBID

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.statistics import Statistics
    from objectives.models.blocks import Unit


@settings(frozen=True, kw_only=True, config=FORBID)
class Obs(BrainSurgeon):
    """Weigh what a set does to all outputs alike."""

    @property
    def allocation(self) -> Literal["global", "uniform"]:
        """In squares of the residual stream: comparable inside a block, not between depths."""
        return "uniform"

    def felt(self, weight: Tensor, unit: Unit, statistics: Statistics) -> Tensor:
        """See ``objectives.pruning.criteria.settings.BrainSurgeon``."""
        felt: Tensor = weight * statistics.moments[unit.key].share ** 0.5  # losses per token of the text
        return felt
