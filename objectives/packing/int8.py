"""8 bits: int8 weights per output channel; W8A8 rounds the activations to int8 per token too, weight-only does not.

W8A8 has three kernels for the same integers; only where they are multiplied differs:
``_int_mm`` on CPUs with int8 instructions, aten's int8-weight kernel for a few rows (it reads the integers as
bf16, which holds every int8 exactly), and a fp32 GEMM on the integers elsewhere (exact below 2^24).
The second returns bf16, so it differs from the others by rounding (about 2e-3 relative).

Symmetric rounding per token and channel follows Dettmers et al., LLM.int8(), https://arxiv.org/abs/2208.07339.
"""

from __future__ import annotations

from functools import cache
from typing import Self

import torch
from torch import Tensor

from objectives.packing.capability import cpu_kernels
from objectives.packing.linear import PackedLinear


def round_symmetric(values: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of ``values`` [n, k] to integers in [-127, 127].

    Returns the integers (as fp32, [n, k]) and the scale of each row (fp32, [n, 1]); a row of zeros stays zero.
    Few operations on purpose: at decode, launching them takes longer than computing them.
    """
    values = values.float()
    largest = torch.linalg.vector_norm(values, ord=float("inf"), dim=1, keepdim=True)
    scale = largest.div_(127.0).clamp_min_(1e-30)
    return (values / scale).round_(), scale


@cache
def _ones(size: int) -> Tensor:
    """Scales of one for aten's kernel: the output is scaled instead, in fp32."""
    return torch.ones(size, dtype=torch.bfloat16)


class Int8Linear(PackedLinear):
    """``codes``: int8 [out, in]; ``scale``: fp32 [out]."""

    codes: Tensor
    scale: Tensor
    weight = None  # T5 asks for the dtype of its FFN's weight, where that is a tensor

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__(codes.shape[1], codes.shape[0], bias)
        self.register_buffer("codes", codes.contiguous())
        self.register_buffer("scale", scale)
        # aten's kernel reads past the end where in_features is no multiple of 32 (it crashed the process).
        self.kernel_rows = 8 if self.in_features % 32 == 0 else 0

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None) -> Self:
        """Round ``weight`` [out, in] to the nearest int8 per output channel."""
        codes, scale = round_symmetric(weight)
        return cls(codes.to(torch.int8), scale.squeeze(1), bias)

    def forward(self, x: Tensor) -> Tensor:
        """Round the activations per token, multiply the integers, scale back."""
        codes, token_scale = round_symmetric(x.reshape(-1, self.in_features))
        y = self._multiply(codes).float().mul_(token_scale).mul_(self.scale)
        if self.bias is not None:
            y = y.add_(self.bias)
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _multiply(self, codes: Tensor) -> Tensor:
        if cpu_kernels().int8:
            return torch._int_mm(codes.to(torch.int8), self.codes.t())
        if codes.shape[0] <= self.kernel_rows:
            return self.kernel(codes)
        return self._multiply_unpacked(codes)

    def kernel(self, rows: Tensor) -> Tensor:
        """Few rows: read the weight as int8."""
        ones = _ones(self.out_features)
        product: Tensor = torch.ops.aten._weight_int8pack_mm(rows.to(torch.bfloat16), self.codes, ones)
        return product

    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """The integers of a slice, unscaled: the output is scaled instead."""
        return self.codes[start:stop].to(dtype)

    def packed_tensors(self) -> list[Tensor]:
        """Codes and scales."""
        return [self.codes, self.scale]


class Int8WeightLinear(Int8Linear):
    """Weight-only: the same integers, activations as they are. A few rows read int8, many a widened slice."""

    forward = PackedLinear.forward

    def kernel(self, rows: Tensor) -> Tensor:
        """Few rows: read the weight as int8; they are rounded to bf16."""
        return super().kernel(rows).float().mul_(self.scale).to(rows.dtype)

    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Widen a slice."""
        return super().unpack(start, stop, dtype).mul_(self.scale[start:stop, None])
