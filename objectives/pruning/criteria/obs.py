"""Optimal brain surgeon: the error a set leaves in the consumer's output once the others have taken over what they can.

This is K-FAC without gradients: every output weighs the same. The recursion is in :mod:`objectives.pruning.removal`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.pruning.criteria.brain_surgeon import BrainSurgeon
from objectives.settings import FORBID

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.statistics import Statistics
    from objectives.models.blocks import Unit


@settings(frozen=True, kw_only=True, config=FORBID)
class Obs(BrainSurgeon):
    """Weigh the errors that a set leaves in all outputs alike."""

    @property
    @override
    def allocation(self) -> Literal["global", "uniform"]:
        """Return ``uniform``: costs are squares of the residual stream, comparable inside a block only."""
        return "uniform"

    @override
    def felt(self, weight: Tensor, unit: Unit, statistics: Statistics) -> Tensor:
        felt: Tensor = weight * statistics.moments[unit.key].share ** 0.5  # losses per token of the text
        return felt
