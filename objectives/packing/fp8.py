"""8 bits on NVIDIA GPUs of compute capability 8.9 and later, as float8_e4m3fn.

Weights are rounded per output channel, activations per token; one product multiplies and scales them.

Micikevicius et al., FP8 Formats for Deep Learning, https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from objectives.errors import NoKernel
from objectives.packing.gpu import GpuLinear
from objectives.packing.rows import round_rows


class Fp8Linear(GpuLinear):
    """A linear of fp8 weights and activations. ``codes``: float8_e4m3fn [out, in]; ``scale``: fp32 [1, out]."""

    codes: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Round ``weight`` [out, in], which is on the GPU. Raises NoKernel for a shape without kernel."""
        super().__init__(weight.shape[0], weight.shape[1], bias)
        if self.in_features % 16 or self.out_features % 16:
            raise NoKernel(f"fp8 on CUDA needs widths in 16s, got {self.in_features} -> {self.out_features}")
        codes, scale = round_rows(weight, torch.float8_e4m3fn)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale.t().contiguous())

    @override
    def product(self, rows: Tensor) -> Tensor:
        codes, scale = round_rows(rows, torch.float8_e4m3fn)
        return torch._scaled_mm(
            codes, self.codes.t(), scale, self.scale, bias=self.bias, out_dtype=torch.bfloat16, use_fast_accum=True
        )
