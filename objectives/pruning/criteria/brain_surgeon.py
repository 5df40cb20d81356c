"""The base of the criteria by the optimal brain surgeon: sets go, and those that stay take over what they can."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.pruning.criterion import Criterion
from objectives.settings import FORBID, Positive

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel
    from objectives.models.blocks import Unit
    from objectives.pruning.curve import Curve


@settings(frozen=True, kw_only=True, config=FORBID)
class BrainSurgeon(Criterion, ABC):
    """Remove sets in the order of :mod:`objectives.pruning.removal`; a criterion says how errors of the outputs weigh.

    ``damping``: added to the diagonal of H, relative to its mean.
    """

    damping: Positive = 0.01

    @override
    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        from objectives.pruning.removal import removal_curve

        weight = model.block(unit.block).linear(unit.consumer).weight.float()
        return removal_curve(unit, model, statistics, self.felt(weight, unit, statistics), removed, self.damping)

    @abstractmethod
    def felt(self, weight: Tensor, unit: Unit, statistics: Statistics) -> Tensor:
        """Return the consumer's ``weight`` [out, in], with its outputs weighted by what their errors cost."""
