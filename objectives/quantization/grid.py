"""Uniform grids: where the rounding points lie, and which of them each weight takes.

A group of weights w shares a scale s and a zero z; its codes are q = round((w - z) / s) + 8 in 0..15 (4 bits),
so that ``(q - 8) s + z`` gives the weight back: the form aten's int4 kernels compute in. The grid of the smallest
weighted squared error is searched among clipped ranges: a few outliers otherwise stretch the grid for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """A rounded weight: ``values`` int32 [out, in] in 0..2^bits - 1; ``scale``, ``zero`` [out, in / group]."""

    values: Tensor
    scale: Tensor
    zero: Tensor
    bits: int

    def dequantize(self) -> Tensor:
        """The weight the codes stand for, fp32 [out, in]."""
        out, width = self.values.shape
        groups = self.scale.shape[1]
        centred = self.values.view(out, groups, width // groups).float() - 2 ** (self.bits - 1)
        restored: Tensor = centred * self.scale.unsqueeze(2) + self.zero.unsqueeze(2)
        return restored.view(out, width)


def min_max_grid(grouped: Tensor, bits: int, shrink: float = 1.0) -> tuple[Tensor, Tensor]:
    """Scale and zero [out, groups] of ``grouped`` weights [out, groups, group], range shrunk by a factor.

    Both are rounded to bf16, as they will be stored.
    """
    low = grouped.amin(dim=2) * shrink
    high = grouped.amax(dim=2) * shrink
    scale = ((high - low) / (2**bits - 1)).to(torch.bfloat16).float().clamp_min(1e-8)
    zero = (low + scale * 2 ** (bits - 1)).to(torch.bfloat16).float()
    return scale, zero


def codes_on_grid(grouped: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Nearest code of every weight, as floats [out, groups, group]."""
    half = 2 ** (bits - 1)
    codes: Tensor = torch.round((grouped - zero.unsqueeze(2)) / scale.unsqueeze(2)) + half
    return codes.clamp_(0, 2**bits - 1)


def mse_grid(grouped: Tensor, importance: Tensor, bits: int, shrinks: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Scale and zero that minimise the squared error weighted by ``importance`` [groups, group].

    ``importance`` is E[x^2] of the input channels, so the error is that of the layer's output.
    """
    best_scale, best_zero = min_max_grid(grouped, bits)
    best = torch.full_like(best_scale, float("inf"))
    for shrink in shrinks:
        scale, zero = min_max_grid(grouped, bits, shrink)
        restored = (codes_on_grid(grouped, scale, zero, bits) - 2 ** (bits - 1)).mul_(scale.unsqueeze(2))
        error = (restored.add_(zero.unsqueeze(2)).sub_(grouped).square_().mul_(importance)).sum(dim=2)
        better = error < best
        best = torch.where(better, error, best)
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
    return best_scale, best_zero


def round_to_grid(weight: Tensor, importance: Tensor, bits: int, group_size: int, shrinks: tuple[float, ...]) -> Codes:
    """Round ``weight`` [out, in] group by group; ``importance``: E[x^2] per input channel, [in]."""
    out, width = weight.shape
    grouped = weight.float().view(out, width // group_size, group_size)
    scale, zero = mse_grid(grouped, importance.view(-1, group_size), bits, shrinks)
    values = codes_on_grid(grouped, scale, zero, bits).view(out, width)
    return Codes(values.to(torch.int32), scale, zero, bits)
