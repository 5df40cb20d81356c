"""Improves codes that are there: scales and zeros are fitted to the codes, and codes are chosen again one by one.

The loss is that of GPTQ, tr(D H D^T), D being the error of the weight and H = E[x x^T]. Both steps are exact, so each
lowers it.
Given the codes, scale and zero of one group are a least-squares problem with two unknowns for every output. Given
these, the best code of one input channel, all others fixed, is the nearest to w - (D H)_q / H_qq. GPTQ chooses every
code once, before it knows what later channels become; here each is looked at again with all others known.

Nagel et al., Up or Down?, https://arxiv.org/abs/2004.10568 (the loss); Behdin et al., QuantEase,
https://arxiv.org/abs/2309.01885 (coordinate descent on it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from objectives.packing.codes import Codes
from objectives.quantization.rounding import ZeroPlace

_AT_ONCE = 64  # channels between two updates of all gradients


def descended(weight: Tensor, second: Tensor, codes: Codes, passes: int, place: ZeroPlace) -> Codes:
    """Return better codes for ``weight`` fp32 [out, in]; ``second``: H [in, in], damped, so that no channel is free.

    ``place``: where zeros may lie, and do.
    """
    for _ in range(passes):
        codes = fitted(weight, second, codes, place)
        codes = chosen_again(weight, second, codes)
    return codes


def fitted(weight: Tensor, second: Tensor, codes: Codes, place: ZeroPlace) -> Codes:
    """Return the codes with the scale and zero of each group, in turn, that lose least, as bf16 holds them.

    A group keeps what it has where rounding to bf16 would lose more than is gained. A zero on a point of its grid stays
    on that point.
    """
    size = weight.shape[1] // codes.scale.shape[1]
    scale, zero = codes.scale.clone(), codes.zero.clone()
    error = codes.dequantize() - weight
    for group in range(scale.shape[1]):
        taken = slice(group * size, (group + 1) * size)
        steps = codes.values[:, taken].float() - 2 ** (codes.bits - 1)
        point = zero[:, group] / scale[:, group]
        if place != "free":
            steps += point[:, None]
        slope, curve = error @ second[:, taken], second[taken, taken]
        more_scale, more_zero = _least(steps, slope, curve, place == "free")
        new_scale = (scale[:, group] + more_scale).to(torch.bfloat16).float()
        new_zero = (zero[:, group] + more_zero).to(torch.bfloat16).float() if place == "free" else point * new_scale
        change = (new_scale - scale[:, group])[:, None] * steps
        if place == "free":
            change += (new_zero - zero[:, group])[:, None]
        better = ((2 * slope + change @ curve) * change).sum(dim=1) < 0
        scale[:, group] = torch.where(better, new_scale, scale[:, group])
        zero[:, group] = torch.where(better, new_zero, zero[:, group])
        error[:, taken] += change * better[:, None]
    return Codes(codes.values, scale, zero, codes.bits, codes.inputs)


def _least(steps: Tensor, slope: Tensor, curve: Tensor, moves: bool) -> tuple[Tensor, Tensor]:
    """Return the changes of scale and zero [out] that lose least; ``slope``: D H of the group [out, group].

    ``moves``: whether the zero may change.
    """
    bent = steps @ curve
    both, alone, ones = (bent * steps).sum(dim=1), bent.sum(dim=1), curve.sum()
    along, across = -(slope * steps).sum(dim=1), -slope.sum(dim=1)
    if not moves:
        return along / both.clamp_min(1e-20), torch.zeros_like(along)
    area = (both * ones - alone * alone).clamp_min(1e-20)
    return (along * ones - across * alone) / area, (both * across - alone * along) / area


def chosen_again(weight: Tensor, second: Tensor, codes: Codes) -> Codes:
    """Return the codes, each chosen once more with all others known; channels with the largest activations first."""
    lowest, highest = -(2 ** (codes.bits - 1)), 2 ** (codes.bits - 1) - 1
    group = weight.shape[1] // codes.scale.shape[1]
    # Channels as rows: every step then works on contiguous memory.
    steps = codes.values.t().float().add_(lowest)
    scales = codes.scale.t().contiguous()
    slopes = second @ (codes.dequantize() - weight).t()
    for taken in torch.split(second.diagonal().argsort(descending=True, stable=True), _AT_ONCE):
        near, own = second[taken][:, taken], slopes[taken]
        changes = torch.empty_like(own)
        for place, channel in enumerate(taken.tolist()):
            scale = scales[channel // group]
            step = (steps[channel] - own[place] / (scale * near[place, place])).round_().clamp_(lowest, highest)
            changes[place] = (step - steps[channel]) * scale
            steps[channel] = step
            own.addr_(near[:, place], changes[place])
        slopes.addmm_(second[:, taken], changes)
    values = steps.sub_(lowest).t().to(torch.int32).contiguous()
    return Codes(values, codes.scale, codes.zero, codes.bits, codes.inputs)
