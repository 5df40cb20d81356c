"""Rounding to 8 bits, symmetric, per output channel and per token.

It follows Dettmers et al., LLM.int8(), https://arxiv.org/abs/2208.07339.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 1 << 16
"""Elements that are rounded at once: what is made of them on the way stays in a core's cache."""


def round_symmetric(values: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of ``values`` [n, k] to integers in [-127, 127].

    Returns the integers (as fp32, [n, k]) and the scale of each row (fp32, [n, 1]); a row of zeros stays zero.
    """
    values = values.float()
    scale = _row_scale(values)
    return (values / scale).round_(), scale


def round_in_pairs(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round as :func:`round_symmetric`, but neighbours (0 and 1, 2 and 3, ...) of one sign add up to 128 at most."""
    weight = weight.float()
    pairs = pad(weight, (0, weight.shape[1] % 2)).view(weight.shape[0], -1, 2)
    above, below = pairs.clamp_min(0).sum(dim=2), pairs.clamp_max(0).sum(dim=2)
    largest = torch.maximum(above, -below).amax(dim=1, keepdim=True)
    scale = largest.div_(127.0).clamp_min_(1e-30)  # rounding two numbers adds one at most
    return (weight / scale).round_(), scale


def round_rows(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Round each of ``rows`` [m, k] as :func:`round_symmetric`, chunk by chunk: integers of ``dtype``, and scales."""
    step = max(1, CHUNK // rows.shape[1])
    if rows.shape[0] <= step or rows.requires_grad:
        codes, scale = round_symmetric(rows)
        return codes.to(dtype), scale
    codes, scale = rows.new_empty(rows.shape, dtype=dtype), rows.new_empty((rows.shape[0], 1), dtype=torch.float32)
    for start in range(0, rows.shape[0], step):
        part = slice(start, start + step)
        codes[part], scale[part] = round_symmetric(rows[part])
    return codes, scale


def _row_scale(values: Tensor) -> Tensor:
    return values.abs().amax(dim=1, keepdim=True).div_(127.0).clamp_min_(1e-30)
