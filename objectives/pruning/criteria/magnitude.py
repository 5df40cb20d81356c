"""Weight norms: the reference that ignores activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.pruning.criterion import Criterion
from objectives.settings import FORBID

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel
    from objectives.models.blocks import Unit
    from objectives.pruning.curve import Curve


@settings(frozen=True, kw_only=True, config=FORBID)
class Magnitude(Criterion):
    """Score a set by the squared norm of the weights that the consumer has for it."""

    @property
    @override
    def allocation(self) -> Literal["global", "uniform"]:
        """Return ``uniform``: weight norms of different layers cannot be compared."""
        return "uniform"

    @override
    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        from objectives.pruning.curve import curve_of_scores

        weight = model.block(unit.block).linear(unit.consumer).weight
        return curve_of_scores(unit, magnitude_scores(weight, unit.width), removed)


def magnitude_scores(weight: Tensor, width: int = 1) -> Tensor:
    """Return the squared norm of each run of ``width`` input channels of ``weight`` [out, k]: [k / width], fp32."""
    return weight.float().square().sum(dim=0).view(-1, width).sum(dim=1)
