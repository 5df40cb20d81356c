"""K-FAC: what removing a set costs in nats per token once the others have taken over what they can.

With H = E[x x^T] of the consumer's input and G = E[g g^T] of the gradient at its output, removing the channels S and
letting the rest compensate costs 1/2 tr(G W_S [H^-1_SS]^-1 W_S^T): the optimal brain surgeon
(:mod:`objectives.pruning.removal`) with the Kronecker-factored curvature of Martens & Grosse,
https://arxiv.org/abs/1503.05671, as in van der Ouderaa et al., The LLM Surgeon, https://arxiv.org/abs/2312.17244. The
unit is log-loss for every layer and kind: curves of attention and FFN, early and late, compare.
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
class KFac(BrainSurgeon):
    """Weigh the error that a set leaves in the outputs by the curvature of the loss."""

    @property
    @override
    def allocation(self) -> Literal["global", "uniform"]:
        """Return ``global``: costs are nats per token everywhere."""
        return "global"

    @override
    def felt(self, weight: Tensor, unit: Unit, statistics: Statistics) -> Tensor:
        return root(statistics.gradients[unit.key]) @ weight  # its Gram matrix is W^T G W


def root(gradient: Tensor) -> Tensor:
    """Return R with R^T R = G, for G = ``gradient`` [out, out]; fp32."""
    import torch

    values, vectors = torch.linalg.eigh(gradient.double())
    factor: Tensor = (values.clamp_min(0).sqrt()[:, None] * vectors.t()).float()
    return factor
