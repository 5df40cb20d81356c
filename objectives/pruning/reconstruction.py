"""Least squares for the consumer of pruned channels: the kept channels take over what the removed ones carried.

Minimise E|W x + b - W' x_S - b'|^2 + ridge |W' - W_S|^2 over W' [out, kept]. The ridge pulls towards the
original weights, not towards zero, so that inputs which calibration did not show fall back on them. This
step decides quality, more than the criterion that chose the channels.

As in Frantar & Alistarh, Optimal Brain Compression, https://arxiv.org/abs/2208.11580, solved jointly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from objectives.calibration.moments import Moment


def reconstruct(
    weight: Tensor, bias: Tensor | None, moment: Moment, kept: Tensor, ridge: float
) -> tuple[Tensor, Tensor | None]:
    """Return new weight [out, kept] and bias [out] of a consumer of which only the channels ``kept`` remain.

    ``ridge`` is relative to the mean diagonal of the kept moment. With a bias the fit is to centred inputs
    and the bias takes the means; without one it is to the raw second moment.
    """
    full = weight.float()
    second = moment.second if bias is None else moment.centred
    inner = second[kept][:, kept]
    damping = ridge * inner.diagonal().mean().clamp_min(1e-12)
    inner = inner + damping * torch.eye(len(kept), device=inner.device)
    target = full @ second[:, kept] + damping * full[:, kept]
    solved: Tensor = torch.cholesky_solve(target.t(), torch.linalg.cholesky(inner)).t()
    if bias is None:
        return solved, None
    return solved, bias.float() + full @ moment.mean - solved @ moment.mean[kept]
