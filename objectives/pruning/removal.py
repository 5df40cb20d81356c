"""Removes sets of channels step by step; those that stay take over what they can: the optimal brain surgeon.

With H = E[x x^T] of a consumer's input, removing the channels S and letting the rest compensate costs
1/2 tr(V_S [H^-1_SS]^-1 V_S^T) with V the consumer's weight, in a metric of its outputs. Weights and inverse are
updated after each step, so that a set becomes expensive to remove once its twin is gone.

Hassibi & Stork (1993); by sets and in steps as in Kurtic et al., ZipLM, https://arxiv.org/abs/2302.04089.
"""

from __future__ import annotations

import torch
from torch import Tensor

from objectives.calibration.statistics import Statistics
from objectives.models import LoadedModel
from objectives.models.blocks import Unit
from objectives.pruning.curve import Curve


def removal_curve(
    unit: Unit, model: LoadedModel, statistics: Statistics, felt: Tensor, removed: tuple[int, ...], damping: float
) -> Curve:
    """Return the curve of one unit of the dense ``model``; the other arguments are those of :func:`removal`."""
    moment = statistics.moments[unit.key]
    second = moment.second if model.block(unit.block).linear(unit.consumer).bias is None else moment.centred
    order, losses = removal(felt, second, unit.width, removed, damping)
    return Curve(unit, order, removed, tuple(losses))


def removal(
    felt: Tensor, second: Tensor, width: int, removed: tuple[int, ...], damping: float
) -> tuple[Tensor, list[float]]:
    """Order the sets that go, and return the order with the cumulative loss at every count in ``removed``.

    ``felt`` [out, k]: the consumer's weight, its outputs weighted by what their errors cost; ``second`` [k, k]: the
    second moment of its inputs. A set is a run of ``width`` channels. ``damping``: added to the diagonal of
    ``second``, relative to its mean.
    """
    damping = damping * float(second.diagonal().mean().clamp_min(1e-12))
    damped = second.diagonal_scatter(second.diagonal() + damping)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))  # fp32: damped, its condition is about 1e3
    felt = felt.clone()
    alive = torch.arange(len(second) // width)
    gone = torch.zeros(len(alive), dtype=torch.bool)  # among the sets still in the matrices
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
    return (sets[:, None] * width + torch.arange(width)).reshape(-1)


def _costs(felt: Tensor, inverse: Tensor, width: int) -> Tensor:
    """Return twice the loss of removing each set alone: tr([H^-1_SS]^-1 (W^T G W)_SS)."""
    if width == 1:
        single: Tensor = felt.square().sum(dim=0) / inverse.diagonal()
        return single
    sets = [slice(start, start + width) for start in range(0, len(inverse), width)]
    return torch.stack([_trace(inverse[each, each], felt[:, each]) for each in sets])


def _trace(inverse: Tensor, felt: Tensor) -> Tensor:
    """Return tr([H^-1_SS]^-1 felt^T felt), in fp64: late in a curve the blocks are nearly singular."""
    factor = torch.linalg.cholesky(inverse.double())
    whitened: Tensor = torch.linalg.solve_triangular(factor, felt.double().t(), upper=False)
    return whitened.square().sum()


def _remove_(felt: Tensor, inverse: Tensor, channels: Tensor) -> float:
    """Take ``channels`` out and let the others compensate; their rows and columns become zero. Returns the loss."""
    columns, lost = inverse[channels][:, channels], felt[:, channels]
    factor = torch.linalg.cholesky(columns.double())
    across = torch.cholesky_solve(inverse[channels].double(), factor).float()
    inverse.addmm_(inverse[:, channels], across, alpha=-1)
    felt.addmm_(lost, across, alpha=-1)
    return 0.5 * float(_trace(columns, lost))
