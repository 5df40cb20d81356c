"""Activation energy: how much a channel, or a group of channels, adds to the residual stream.

The consumer W reads channels x; removing the set S changes its output by W_S x_S, whose mean square is
tr(W_S E[x_S x_S^T] W_S^T). Sun et al., Wanda, https://arxiv.org/abs/2306.11695, use the same product per weight; An et
al., FLAP, https://arxiv.org/abs/2312.11983, per structure.
"""

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
class Activation(Criterion):
    """Score a set by the mean square of its part of the consumer's output."""

    @property
    @override
    def allocation(self) -> Literal["global", "uniform"]:
        """Return ``uniform``: costs are squares of the residual stream, comparable inside a block only."""
        return "uniform"

    @override
    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        from objectives.pruning.curve import curve_of_scores

        weight = model.block(unit.block).linear(unit.consumer).weight
        moment = statistics.moments[unit.key]
        scores = activation_scores(weight, moment.second, unit.width) * moment.share  # per token of the text
        return curve_of_scores(unit, scores, removed)


def activation_scores(weight: Tensor, second: Tensor, width: int = 1) -> Tensor:
    """Return the output energy of each run of ``width`` input channels.

    ``weight``: [out, k], ``second``: E[x x^T] as [k, k]; k a multiple of ``width``. Returns [k / width], fp32.
    """
    if width == 1:
        return weight.float().square().sum(dim=0) * second.diagonal()
    gram = weight.float().t() @ weight.float()
    sets = gram.shape[0] // width
    blocks = (gram * second).view(sets, width, sets, width)
    return blocks.diagonal(dim1=0, dim2=2).sum(dim=(0, 1))
