"""32 bits: W in float32, multiplied in float32.

This is the reference that every runtime has, and the dense form on CPUs without bf16.
"""

from __future__ import annotations

import sys
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from typing_extensions import override

from objectives.packing.linear import PackedLinear


class Fp32Linear(PackedLinear):
    """A linear in 32 bits. ``weight``: fp32 [out, in], possibly tied to an embedding."""

    weight: nn.Parameter

    def __init__(self, weight: nn.Parameter, bias: Tensor | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], None if bias is None else bias.float())
        self.weight = weight

    @property
    @override
    def kernel_rows(self) -> int:
        return sys.maxsize

    @override
    def path(self, rows: int) -> str:
        return "kernel"

    @classmethod
    def from_linear(cls, source: nn.Linear) -> Fp32Linear:
        """Store ``source`` in 32 bits; a weight that is already so is shared."""
        if source.weight.dtype != torch.float32:
            source.weight.data = source.weight.data.float()  # in place: modules that share it follow
        return cls(cast("nn.Parameter", source.weight), None if source.bias is None else source.bias.detach())

    @override
    def kernel(self, rows: Tensor) -> Tensor:
        return linear(rows.float(), self.weight)

    @override
    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.weight[start:stop].to(dtype)
