"""K-FAC: what removing a set costs in nats per token once the others have taken over what they can.

With H = E[x x^T] of the consumer's input and G = E[g g^T] of the gradient at its output, removing the channels S and
letting the rest compensate costs 1/2 tr(G W_S [H^-1_SS]^-1 W_S^T): the optimal brain surgeon of Hassibi & Stork (1993)
with the Kronecker-factored curvature of Martens & Grosse, https://arxiv.org/abs/1503.05671, as in van der Ouderaa et
al., The LLM Surgeon, https://arxiv.org/abs/2312.17244. Sets go in steps; weights and inverse are updated after each, so
that a set whose twin is gone becomes dear. The unit is log-loss for every layer and kind: curves of attention and
FFN, early and late, compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID, Positive

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration import Statistics
    from objectives.families import Unit
    from objectives.models import LoadedModel
    from objectives.pruning.curve import Curve


@settings(frozen=True, kw_only=True, config=FORBID)
class KFac:
    """``damping``: added to the diagonal of H, relative to its mean."""

    damping: Positive = 0.01

    @property
    def allocation(self) -> str:
        """Costs are nats per token everywhere."""
        return "global"

    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        """See ``objectives.types.Criterion``."""
        from objectives.pruning.curve import Curve

        linear = model.block(unit.block).linear(unit.consumer)
        moment = statistics.moments[unit.key]
        second = moment.second if linear.bias is None else moment.centred
        gradient = statistics.gradients[unit.key]
        order, losses = removal(linear.weight, second, gradient, unit.width, removed, self.damping)
        return Curve(unit, order, removed, tuple(losses))


def removal(
    weight: Tensor, second: Tensor, gradient: Tensor, width: int, removed: tuple[int, ...], damping: float
) -> tuple[Tensor, list[float]]:
    """Order of the sets (those that go at all) and the cumulative loss at every count in ``removed``.

    ``weight`` [out, k], ``second`` [k, k], ``gradient`` [out, out]; a set is a run of ``width`` channels.
    """
    import torch

    damping = damping * float(second.diagonal().mean().clamp_min(1e-12))
    damped = second.diagonal_scatter(second.diagonal() + damping)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))  # fp32: damped, its condition is about 1e3
    felt = _root(gradient) @ weight.float()  # its Gram matrix is W^T G W
    alive = torch.arange(len(second) // width)
    gone = torch.zeros(len(alive), dtype=torch.bool)  # of those still in the matrices
    order: list[Tensor] = []
    losses, count = [0.0], 0
    for target in removed[1:]:
        loss = losses[-1]
        while count < target:
            costs = _costs(felt, inverse, width).masked_fill_(gone, float("inf"))
            picked = costs.topk(target - count if width == 1 else 1, largest=False).indices
            loss += _remove_(felt, inverse, _channels(picked, width))
            order.append(alive[picked])
            gone[picked] = True
            count += len(picked)
            if width > 1 or gone.float().mean() > 0.2:  # copying the matrices costs more than a step
                rest = (~gone).nonzero().squeeze(1)
                channels = _channels(rest, width)
                felt, inverse = felt[:, channels], inverse[channels][:, channels]
                alive, gone = alive[rest], gone[rest]
        losses.append(loss)
    return torch.cat(order) if order else alive[:0], losses


def _channels(sets: Tensor, width: int) -> Tensor:
    import torch

    return (sets[:, None] * width + torch.arange(width)).reshape(-1)


def _root(gradient: Tensor) -> Tensor:
    """R with R^T R = G."""
    import torch

    values, vectors = torch.linalg.eigh(gradient.double())
    root: Tensor = (values.clamp_min(0).sqrt()[:, None] * vectors.t()).float()
    return root


def _costs(felt: Tensor, inverse: Tensor, width: int) -> Tensor:
    """Twice the loss of removing each set alone: tr([H^-1_SS]^-1 (W^T G W)_SS)."""
    import torch

    if width == 1:
        single: Tensor = felt.square().sum(dim=0) / inverse.diagonal()
        return single
    sets = [slice(start, start + width) for start in range(0, len(inverse), width)]
    return torch.stack([_trace(inverse[each, each], felt[:, each]) for each in sets])


def _trace(inverse: Tensor, felt: Tensor) -> Tensor:
    """tr([H^-1_SS]^-1 felt^T felt), in fp64: late in a curve the blocks are nearly singular."""
    import torch

    factor = torch.linalg.cholesky(inverse.double())
    whitened: Tensor = torch.linalg.solve_triangular(factor, felt.double().t(), upper=False)
    return whitened.square().sum()


def _remove_(felt: Tensor, inverse: Tensor, channels: Tensor) -> float:
    """Take ``channels`` out, the others compensating; their rows and columns become zero. Returns the loss."""
    import torch

    columns, lost = inverse[channels][:, channels], felt[:, channels]
    factor = torch.linalg.cholesky(columns.double())
    across = torch.cholesky_solve(inverse[channels].double(), factor).float()
    inverse.addmm_(inverse[:, channels], across, alpha=-1)
    felt.addmm_(lost, across, alpha=-1)
    return 0.5 * float(_trace(columns, lost))
