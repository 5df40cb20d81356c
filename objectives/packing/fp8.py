"""8 bits on NVIDIA GPUs of compute capability 8.9 and later: float8_e4m3fn, weights per output channel, activations per
token, multiplied and scaled by one product.

Micikevicius et al., FP8 Formats for Deep Learning, https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from objectives.errors import NoKernel
from objectives.packing.rows import round_rows


class Fp8Linear(nn.Module):
    """``codes``: float8_e4m3fn [out, in]; ``scale``: fp32 [1, out]."""

    codes: Tensor
    scale: Tensor
    weight = None  # some models ask for its type

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """``weight`` [out, in], on the GPU. Raises NoKernel for a shape without kernel."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        if self.in_features % 16 or self.out_features % 16:
            raise NoKernel(f"fp8 on CUDA needs widths in 16s, got {self.in_features} -> {self.out_features}")
        codes, scale = round_rows(weight, torch.float8_e4m3fn)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale.t().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x`` [..., in]; the output has the dtype of ``x``."""
        codes, scale = round_rows(x.reshape(-1, self.in_features), torch.float8_e4m3fn)
        y = torch._scaled_mm(
            codes, self.codes.t(), scale, self.scale, bias=self.bias, out_dtype=torch.bfloat16, use_fast_accum=True
        )
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Shapes for ``print(model)``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
