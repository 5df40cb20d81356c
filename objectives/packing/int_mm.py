"""8 bits on NVIDIA GPUs: int8 weights per output channel, activations per token, multiplied on tensor cores.

cuBLAS's int8 product takes more than 16 rows, in and out in 8s; fewer rows are filled up.

Symmetric rounding per token and channel: Dettmers et al., LLM.int8(), https://arxiv.org/abs/2208.07339.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from objectives.errors import NoKernel
from objectives.packing.gpu import GpuLinear
from objectives.packing.rows import round_rows, scale_sums

LEAST_ROWS = 32
"""Rows that the product gets at least."""


class IntMmLinear(GpuLinear):
    """A linear of int8 weights and activations. ``codes``: int8 [out, in]; ``scale``: fp32 [out]."""

    codes: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Round ``weight`` [out, in], which is on the GPU. Raises NoKernel for a shape without kernel."""
        super().__init__(weight.shape[0], weight.shape[1], bias)
        if self.in_features % 8 or self.out_features % 8:
            raise NoKernel(f"int8 on CUDA needs widths in 8s, got {self.in_features} -> {self.out_features}")
        codes, scale = round_rows(weight, torch.int8)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale.squeeze(1))

    @override
    def product(self, rows: Tensor) -> Tensor:
        codes, scale = round_rows(rows, torch.int8, LEAST_ROWS)
        return scale_sums(torch._int_mm(codes, self.codes.t()), scale, self.scale, self.bias)
