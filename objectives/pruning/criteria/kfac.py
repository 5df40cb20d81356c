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

from objectives.settings import FORBID, Positive

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.blocks import Unit
    from objectives.calibration import Statistics
    from objectives.models import LoadedModel
    from objectives.pruning.curve import Curve


@settings(frozen=True, kw_only=True, config=FORBID)
class KFac:
    """``damping``: added to the diagonal of H, relative to its mean."""

    damping: Positive = 0.01

    @property
    def allocation(self) -> Literal["global", "uniform"]:
        """Costs are nats per token everywhere."""
        return "global"

    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        """See ``objectives.types.Criterion``."""
        from objectives.pruning.removal import removal_curve

        weight = model.block(unit.block).linear(unit.consumer).weight.float()
        felt = root(statistics.gradients[unit.key]) @ weight  # its Gram matrix is W^T G W
        return removal_curve(unit, model, statistics, felt, removed, self.damping)


def root(gradient: Tensor) -> Tensor:
    """R with R^T R = G."""
    import torch

    values, vectors = torch.linalg.eigh(gradient.double())
    found: Tensor = (values.clamp_min(0).sqrt()[:, None] * vectors.t()).float()
    return found
