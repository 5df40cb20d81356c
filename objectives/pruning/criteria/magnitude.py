"""Weight norms: the reference that ignores activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel
    from objectives.models.blocks import Unit
    from objectives.pruning.curve import Curve


@settings(frozen=True, kw_only=True, config=FORBID)
class Magnitude:
    """Squared norm of what the consumer multiplies a set with."""

    @property
    def allocation(self) -> Literal["global", "uniform"]:
        """Weight norms of different layers do not compare."""
        return "uniform"

    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        """See ``objectives.pruning.criterion.Criterion``."""
        from objectives.pruning.curve import curve_of_scores

        weight = model.block(unit.block).linear(unit.consumer).weight
        return curve_of_scores(unit, magnitude_scores(weight, unit.width), removed)


def magnitude_scores(weight: Tensor, width: int = 1) -> Tensor:
    """Squared weight norm of each run of ``width`` input channels of ``weight`` [out, k]: [k / width], fp32."""
    return weight.float().square().sum(dim=0).view(-1, width).sum(dim=1)
