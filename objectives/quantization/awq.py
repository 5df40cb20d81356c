"""Activation-aware scaling: input channels that carry much are stored finer.

Before rounding, every input channel of W is multiplied by s = rms(x)^alpha, and x is divided by it at run time, so that
large activations meet small relative errors; alpha is searched per layer for the least output error tr(D H D^T). The
division stays in the packed linear instead of being folded into the norm or linear before, where post-norm encoders
and grouped queries have no place for it: one multiplication per input.

Lin et al., AWQ, https://arxiv.org/abs/2306.00978.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration import Moment, Statistics
    from objectives.models import LoadedModel
    from objectives.quantization.grid import Codes
    from objectives.types import Device

ALPHAS = tuple(step / 10 for step in range(11))


@settings(frozen=True, kw_only=True, config=FORBID)
class Awq:
    """Store block weights in ``bits``; all settings as for round to nearest."""

    bits: Literal[32, 16, 8, 4, 3, 2] = 16
    group_size: Literal[32, 64, 128] = 64
    grid: Literal["mse", "min_max"] = "mse"
    zero: Literal["free", "whole"] = "free"
    scheme: Literal["w8a8", "weight_only", "fp8"] = "w8a8"
    embeddings: Literal[16, 8] = 16
    simulate: bool = False
    predicts: bool = True

    @property
    def stored(self) -> frozenset[int]:
        """See ``objectives.types.Quantizer``."""
        return frozenset() if self.simulate else frozenset({self.bits})

    def quantize_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """See ``objectives.types.Quantizer``."""
        from objectives.quantization.layers import store_

        store_(
            model, statistics, device, self.bits, self, scheme=self.scheme, simulate=self.simulate,
            predict=self.predicts, embeddings=self.embeddings,
        )  # fmt: skip

    def sketch_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """See ``objectives.types.Quantizer``."""
        from objectives.quantization.layers import Sketch, store_

        sketch = Sketch(self.group_size, scales_inputs=True)
        store_(model, statistics.shapes, device, self.bits, sketch, scheme=self.scheme, embeddings=self.embeddings)

    def predict(self, statistics: Statistics) -> float:
        """See ``objectives.types.Quantizer``."""
        from objectives.quantization.sensitivity import predicted_loss

        return predicted_loss(statistics, self.bits, self, self.scheme)

    def round(self, weight: Tensor, moment: Moment, bits: int, group_size: int) -> Codes:
        """Codes of ``weight`` [out, in], with that of :data:`ALPHAS` which is best for every fourth output."""
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
        whole, power = self.zero == "whole", power * inputs.square()
        codes = round_to_grid(weight / inputs, power, bits, group_size, SHRINKS[self.grid], whole)
        return codes if alpha == 0 else replace(codes, inputs=inputs)


def _output_error(error: Tensor, second: Tensor) -> float:
    return float(((error @ second) * error).sum())
