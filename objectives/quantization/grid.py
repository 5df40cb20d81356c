"""Uniform grids: the rounding points, and the point that each weight takes.

A group of weights w shares a scale s and a zero z; its codes are q = round((w - z) / s) + 8 in 0..15 (4 bits),
so that ``(q - 8) s + z`` gives the weight back: the form aten's int4 kernels compute in. The grid of the smallest
weighted squared error is searched among clipped ranges: a few outliers otherwise stretch the grid for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from objectives.packing.codes import Codes
from objectives.quantization.rounding import ZeroPlace

_IN_CACHE = 1 << 19  # elements

SHRINKS: Mapping[str, tuple[float, ...]] = {"mse": tuple(1.0 - 0.05 * step for step in range(9)), "min_max": (1.0,)}
"""Factors of the range that a grid search tries."""


def min_max_grid(grouped: Tensor, bits: int, place: ZeroPlace = "free") -> tuple[Tensor, Tensor]:
    """Return the scale and zero [out, groups] that cover all of ``grouped`` weights [out, groups, group]."""
    return next(_grids(grouped.amin(dim=2), grouped.amax(dim=2), bits, place))


def _grids(low: Tensor, high: Tensor, bits: int, place: ZeroPlace) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield grids from ``low`` to ``high``: scale and zero, rounded to bf16 as they will be stored.

    There are two with the zero in the middle: the lowest code, which has no counterpart, serves one end or the other.
    """
    if place != "middle":
        yield _grid(low, high, bits, place == "whole")
        return
    half, most = 2 ** (bits - 1), torch.maximum(-low, high)
    sign = torch.where(high > -low, -1.0, 1.0)
    for steps, turned in ((half, sign), (half - 1, 1.0)):
        scale = (most / steps).to(torch.bfloat16).float().clamp_min(1e-8) * turned
        yield scale, torch.zeros_like(scale)


def _grid(low: Tensor, high: Tensor, bits: int, whole: bool) -> tuple[Tensor, Tensor]:
    if whole:
        low, high = low.clamp_max(0), high.clamp_min(0)
    scale = ((high - low) / (2**bits - 1)).to(torch.bfloat16).float().clamp_min(1e-8)
    if whole:
        return scale, scale * (2 ** (bits - 1) - torch.round(-low / scale).clamp_(0, 2**bits - 1))
    zero = (low + scale * 2 ** (bits - 1)).to(torch.bfloat16).float()
    return scale, zero


def codes_on_grid(grouped: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Return the nearest code of every weight, as floats [out, groups, group]."""
    half = 2 ** (bits - 1)
    codes: Tensor = torch.round((grouped - zero.unsqueeze(2)) / scale.unsqueeze(2)) + half
    return codes.clamp_(0, 2**bits - 1)


def mse_grid(
    grouped: Tensor, importance: Tensor, bits: int, shrinks: tuple[float, ...], place: ZeroPlace = "free"
) -> tuple[Tensor, Tensor]:
    """Return the scale and zero that minimise the squared error weighted by ``importance`` [groups, group].

    ``importance`` is E[x^2] of the input channels, so the error is that of the layer's output. Slices of output
    channels that stay in cache are searched one by one: five times faster than whole layers.
    """
    if shrinks == (1.0,):
        return min_max_grid(grouped, bits, place)
    rows = max(1, _IN_CACHE // grouped[0].numel())
    found = [_mse_grid(part, importance, bits, shrinks, place) for part in torch.split(grouped, rows)]
    return torch.cat([scale for scale, _ in found]), torch.cat([zero for _, zero in found])


def _mse_grid(
    grouped: Tensor, importance: Tensor, bits: int, shrinks: tuple[float, ...], place: ZeroPlace
) -> tuple[Tensor, Tensor]:
    low, high = grouped.amin(dim=2), grouped.amax(dim=2)
    half = 2 ** (bits - 1)
    steps, codes = torch.empty_like(grouped), torch.empty_like(grouped)
    best_scale, best_zero = next(_grids(low, high, bits, place))
    best = torch.full_like(best_scale, float("inf"))
    for scale, zero in (grid for shrink in shrinks for grid in _grids(low * shrink, high * shrink, bits, place)):
        torch.sub(grouped, zero.unsqueeze(2), out=steps).div_(scale.unsqueeze(2))
        torch.round(steps, out=codes).clamp_(-half, half - 1)
        error = steps.sub_(codes).square_().mul_(importance).sum(dim=2).mul_(scale.square())
        better = error < best
        best = torch.where(better, error, best)
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
    return best_scale, best_zero


def grid_of(
    weight: Tensor,
    importance: Tensor,
    bits: int,
    group_size: int,
    shrinks: tuple[float, ...],
    place: ZeroPlace = "free",
) -> tuple[Tensor, Tensor]:
    """Return the scale and zero [out, in / group] of ``weight`` [out, in].

    ``importance``: E[x^2] per input channel, [in]. ``place``: where zeros may lie.
    """
    grouped = weight.float().view(weight.shape[0], -1, group_size)
    return mse_grid(grouped, importance.view(-1, group_size), bits, shrinks, place)


def round_to_grid(
    weight: Tensor,
    importance: Tensor,
    bits: int,
    group_size: int,
    shrinks: tuple[float, ...],
    place: ZeroPlace = "free",
) -> Codes:
    """Round ``weight`` [out, in] to the nearest point, group by group."""
    scale, zero = grid_of(weight, importance, bits, group_size, shrinks, place)
    grouped = weight.float().view(weight.shape[0], -1, group_size)
    values = codes_on_grid(grouped, scale, zero, bits).view(weight.shape)
    return Codes(values.to(torch.int32), scale, zero, bits)
