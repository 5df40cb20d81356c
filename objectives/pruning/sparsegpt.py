"""SparseGPT removes weights one input channel after the other; the channels that follow compensate for them.

With H = E[x x^T] and U^T U = H^-1, removing w_q costs (w_q / U_qq)^2 and is compensated on the later channels by row q
of U: GPTQ's recursion, with zero in place of the nearest code. The weights that go are chosen block by block of
channels, or four by four.

Frantar & Alistarh, SparseGPT, https://arxiv.org/abs/2301.00774.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.pruning.masked import Masked
from objectives.settings import FORBID, Positive

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Moment
    from objectives.pruning.masking import Pattern

_AT_ONCE = 64  # channels between two choices; a multiple of four


@settings(frozen=True, kw_only=True, config=FORBID)
class SparseGpt(Masked):
    """Zero ``ratio`` of every block linear's weights: in any place, or ``2:4``. Simulated: no kernel gains by it.

    ``damping``: added to the diagonal of H, relative to its mean.
    """

    damping: Positive = 0.01

    @override
    def masked(self, weight: Tensor, moment: Moment) -> Tensor:
        return masked(weight, moment.second, self.ratio, self.pattern, self.damping)


def masked(weight: Tensor, second: Tensor, ratio: float, pattern: Pattern, damping: float) -> Tensor:
    """Return the weight [out, in] with zeros, its other entries adapted; ``second``: H [in, in].

    ``ratio``, ``pattern``, ``damping``: as in :class:`SparseGpt`.
    """
    import torch

    from objectives.pruning.masking import lowest
    from objectives.quantization.gptq import inverse_factor

    factor = inverse_factor(second, damping)
    open_ = weight.float().t().contiguous()  # channels as rows
    at_once = 4 if pattern == "2:4" else _AT_ONCE
    for start in range(0, len(open_), at_once):
        stop = min(start + at_once, len(open_))
        costs = (open_[start:stop] / factor.diagonal()[start:stop, None]).square()
        compared = costs.t().contiguous() if pattern == "2:4" else costs.t().reshape(1, -1)  # else all of the block
        gone = lowest(compared, ratio, pattern).view(-1, stop - start).t()
        errors = torch.empty(stop - start, weight.shape[0])
        for channel in range(start, stop):
            lost = open_[channel].masked_fill(~gone[channel - start], 0.0)
            error = errors[channel - start].copy_(lost).div_(factor[channel, channel])
            open_[channel] -= lost
            open_[channel + 1 : stop].addr_(factor[channel, channel + 1 : stop], error, alpha=-1)
        open_[stop:].addmm_(factor[start:stop, stop:].t(), errors, alpha=-1)
    return open_.t().contiguous()
