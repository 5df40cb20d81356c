"""8 bits on NVIDIA GPUs: int8 weights per output channel, activations per token, multiplied on tensor cores.

cuBLAS's int8 product takes more than 16 rows, in and out in 8s; fewer rows are filled up.

Symmetric rounding per token and channel: Dettmers et al., LLM.int8(), https://arxiv.org/abs/2208.07339.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from objectives.errors import NoKernel
from objectives.packing.rows import round_rows, scale_sums

LEAST_ROWS = 32
"""That the product is given."""


class IntMmLinear(nn.Module):
    """``codes``: int8 [out, in]; ``scale``: fp32 [out]."""

    codes: Tensor
    scale: Tensor
    weight = None  # some models ask for its type

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """``weight`` [out, in], on the GPU. Raises NoKernel for a shape without kernel."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        if self.in_features % 8 or self.out_features % 8:
            raise NoKernel(f"int8 on CUDA needs widths in 8s, got {self.in_features} -> {self.out_features}")
        codes, scale = round_rows(weight, torch.int8)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale.squeeze(1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x`` [..., in]; the output has the dtype of ``x``."""
        codes, scale = round_rows(x.reshape(-1, self.in_features), torch.int8, LEAST_ROWS)
        y = scale_sums(torch._int_mm(codes, self.codes.t()), scale, self.scale, self.bias)
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Shapes for ``print(model)``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
