"""The one forward pass of all packed linears: a few rows take the kernel, many rows are unpacked and multiplied.

Weight-only kernels read little memory, so they win at decode (one row per request) and lose up to 3x at
prefill, where a plain GEMM on the unpacked weight wins. The row count at which to switch is the class's
``kernel_rows``. Unpacking goes in slices of output rows that stay in cache, so that a large layer (a
vocabulary head) does not need its unpacked copy in memory.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from objectives.packing.capability import cpu_kernels

SLICE_ELEMENTS = 1 << 20
SLICE_ROWS = 64


class PackedLinear(nn.Module):
    """Computes ``y = x W^T + b`` with W ``[out_features, in_features]`` stored packed.

    Subclasses give :meth:`kernel` (any number of rows, fast for few) and :meth:`unpack` (a slice of W).
    """

    in_features: int
    out_features: int
    bias: nn.Parameter | None
    hidden_bytes: int = 0
    """Bytes of the weight that a kernel keeps outside of tensors."""

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def kernel_rows(self) -> int:
        """Return the largest number of rows that go to :meth:`kernel`; more are multiplied by the unpacked weight."""
        raise NotImplementedError

    def kernel(self, rows: Tensor) -> Tensor:
        """Multiply ``rows`` [m, in] by the packed weight: [m, out], without bias."""
        raise NotImplementedError

    def repack_(self) -> Self:
        """Prepare for the kernel of this CPU, once the values are in place; returns self."""
        return self

    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Unpack the rows ``start:stop`` of W, ``[stop - start, in]`` in ``dtype``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x`` [..., in]; the output has the dtype of ``x``."""
        rows = x.reshape(-1, self.in_features)
        if rows.dtype != torch.float32 and not cpu_kernels().bf16:  # T5 casts what its FFN's last linear reads
            rows = rows.float()
        y = self.kernel(rows) if rows.shape[0] <= self.kernel_rows else self._multiply_unpacked(rows)
        if self.bias is not None:
            y = y.add_(self.bias.to(y.dtype))
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _multiply_unpacked(self, rows: Tensor) -> Tensor:
        step = max(1, SLICE_ELEMENTS // self.in_features // SLICE_ROWS) * SLICE_ROWS
        if step >= self.out_features:
            return rows @ self._slice(0, self.out_features, rows.dtype).t()
        starts = range(0, self.out_features, step)
        stops = (min(start + step, self.out_features) for start in starts)
        if rows.requires_grad:  # filling slices would make autograd copy all of the output for each of them
            parts = [rows @ self._slice(start, stop, rows.dtype).t() for start, stop in zip(starts, stops)]
            return torch.cat(parts, dim=1)
        y = rows.new_empty(rows.shape[0], self.out_features)
        for start, stop in zip(starts, stops):
            y[:, start:stop] = rows @ self._slice(start, stop, rows.dtype).t()
        return y

    def _slice(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Return the slice that :meth:`_multiply_unpacked` multiplies by; ``start`` is a multiple of ``SLICE_ROWS``."""
        return self.unpack(start, stop, dtype)

    def extra_repr(self) -> str:
        """Describe the shapes for ``print(model)``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
