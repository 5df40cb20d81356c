"""Activation-aware scaling: input channels with large activations are stored more finely.

Before rounding, every input channel of W is multiplied by s = rms(x)^alpha, and x is divided by it at run time, so that
large activations meet small relative errors; alpha is searched per layer for the least output error tr(D H D^T). The
division stays in the packed linear instead of being folded into the norm or linear before, where post-norm encoders
and grouped queries have no place for it: one multiplication per input.

Lin et al., AWQ, https://arxiv.org/abs/2306.00978.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.quantization.one_width import OneWidth
from objectives.settings import FORBID

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Moment
    from objectives.packing.codes import Codes

ALPHAS = tuple(step / 10 for step in range(11))


@settings(frozen=True, kw_only=True, config=FORBID)
class Awq(OneWidth):
    """Store block weights in ``bits``, those of important inputs more finely."""

    scales_inputs: ClassVar[bool] = True

    @override
    def round(self, weight: Tensor, moment: Moment, bits: int, group_size: int) -> Codes:
        """Round ``weight`` [out, in] with the alpha of :data:`ALPHAS` that is best for every fourth output."""
        power = moment.second.diagonal().clamp_min(1e-12)
        part = weight[::4]

        def error(alpha: float) -> float:
            codes = self._rounded(part, power, alpha, bits, group_size)
            return _output_error(codes.dequantize() - part, moment.second)

        return self._rounded(weight, power, min(ALPHAS, key=error), bits, group_size)

    def _rounded(self, weight: Tensor, power: Tensor, alpha: float, bits: int, group_size: int) -> Codes:
        from dataclasses import replace

        import torch

        from objectives.quantization.grid import SHRINKS, round_to_grid

        scale = power.pow(alpha / 2)
        scale = scale / (scale.max() * scale.min()).sqrt()
        inputs = (1 / scale).to(torch.bfloat16).float()  # as they will be stored
        power = power * inputs.square()
        codes = round_to_grid(weight / inputs, power, bits, group_size, SHRINKS[self.grid], self.zero)
        return codes if alpha == 0 else replace(codes, inputs=inputs)


def _output_error(error: Tensor, second: Tensor) -> float:
    return float(((error @ second) * error).sum())
