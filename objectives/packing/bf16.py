"""16 bits: W in bfloat16.

On a CPU with native bf16 this is an ordinary linear. Elsewhere torch's bf16 GEMM falls back to a slow loop
above one or two rows, so W is widened to fp32 slice by slice; the products are those of fp32.
"""

from __future__ import annotations

import sys
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from typing_extensions import override

from objectives.packing.capability import cpu_kernels
from objectives.packing.linear import PackedLinear


class Bf16Linear(PackedLinear):
    """A linear in 16 bits. ``weight``: bf16 [out, in], possibly tied to an embedding."""

    weight: nn.Parameter

    def __init__(self, weight: nn.Parameter, bias: Tensor | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias)
        self.weight = weight

    @property
    @override
    def kernel_rows(self) -> int:
        """Return no limit where bf16 is native; else 2: for more rows torch runs a slow loop."""
        return sys.maxsize if cpu_kernels().bf16 else 2

    @classmethod
    def from_linear(cls, source: nn.Linear) -> Bf16Linear:
        """Store ``source`` in 16 bits; a weight already in bf16 is shared, not copied."""
        weight = source.weight
        if weight.dtype != torch.bfloat16:
            weight = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
        return cls(cast("nn.Parameter", weight), None if source.bias is None else source.bias.detach())

    @override
    def kernel(self, rows: Tensor) -> Tensor:
        return linear(rows.to(torch.bfloat16), self.weight).to(rows.dtype)

    @override
    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.weight[start:stop].to(dtype)
