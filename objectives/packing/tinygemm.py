"""4 bits on NVIDIA GPUs: the codes of our quantisers in the layout of torch's tinygemm kernel.

The kernel wins for a few rows, where reading the weight is what takes time; for many, the weight is unpacked and
multiplied in bf16. As on the CPU (:mod:`objectives.packing.int4`), unpacking reads the kernel's own layout, learned by
packing patterns that are known: nothing is stored twice.

A weight is ``(code - 8) * scale + zero``, code in 0..15.
"""

from __future__ import annotations

import sys
from functools import cache

import torch
from torch import Tensor
from typing_extensions import override

from objectives.errors import NoKernel
from objectives.packing.codes import Codes
from objectives.packing.gpu import GpuLinear
from objectives.packing.rows import HAS_TRITON

GROUP_SIZES = (32, 64, 128, 256)
ROWS = 8
"""Output channels that are packed together."""
KERNEL_ROWS = 40
"""The most rows for which tinygemm wins: 40 to 50 on an H200 (docs/benchmarks/gpu.md)."""


def inner_tiles(out_features: int, in_features: int, group_size: int) -> int:
    """Return how many tiles of 16 input channels the layout interleaves. Raises NoKernel for a shape without kernel."""
    if group_size not in GROUP_SIZES or in_features % group_size or out_features % ROWS:
        raise NoKernel(
            f"int4 on CUDA needs outputs in {ROWS}s and inputs in groups of one of {GROUP_SIZES}, "
            f"got {in_features} -> {out_features} in groups of {group_size}"
        )
    return next(tiles for tiles in (8, 4, 2) if in_features % (tiles * 16) == 0)


def pack(codes: Tensor, tiles: int) -> Tensor:
    """Pack ``codes`` [out, in] in 0..15, on the GPU, as int32 [out / 8, in / (16 tiles), 32, tiles / 2]."""
    codes = codes.to(torch.uint8)
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(codes[:, ::2] << 4 | codes[:, 1::2], tiles)
    return packed


def _nibbles(packed: Tensor) -> Tensor:
    """Return the nibbles of every block, uint8 [out / 8, in / (16 tiles), 128 tiles]."""
    bytes_ = packed.flatten(2).contiguous().view(torch.uint8)
    return torch.stack([bytes_ & 15, bytes_ >> 4], dim=-1).flatten(2)


@cache
def block_layout(tiles: int) -> Tensor | None:
    """Return where each weight's nibble lies in a block, [8 * 16 tiles], rows first; None if torch packs otherwise."""
    places = torch.arange(ROWS * 16 * tiles, device="cuda")
    held = torch.zeros_like(places)
    for digit in range(3):  # the number of a place, four bits at a time
        codes = (places >> 4 * digit & 15).view(ROWS, 16 * tiles)
        held += _nibbles(pack(codes, tiles)).flatten().long() << 4 * digit
    return torch.argsort(held).int() if torch.equal(held.sort().values, places) else None


class TinygemmLinear(GpuLinear):
    """A linear of 4-bit weights in tinygemm's layout.

    ``packed``: the result of :func:`pack`; ``scale_zero``: bf16 [in / group, out, 2]; ``inputs``: bf16 [in] or None,
    factors of x.
    """

    packed: Tensor
    scale_zero: Tensor
    inputs: Tensor | None

    def __init__(self, codes: Codes, bias: Tensor | None = None) -> None:
        """Pack ``codes`` on the GPU, where ``bias`` [out] is. Raises NoKernel for a shape without kernel."""
        values, scale, zero = (tensor.to("cuda") for tensor in (codes.values, codes.scale, codes.zero))
        super().__init__(values.shape[0], values.shape[1], bias)
        self.group_size = self.in_features // scale.shape[1]
        self.tiles = inner_tiles(self.out_features, self.in_features, self.group_size)
        self.register_buffer("packed", pack(values, self.tiles))
        self.register_buffer("scale_zero", torch.stack([scale.t(), zero.t()], dim=2).to(torch.bfloat16).contiguous())
        self.register_buffer("inputs", None if codes.inputs is None else codes.inputs.to("cuda", torch.bfloat16))
        self._layout = block_layout(self.tiles)
        self.kernel_rows = sys.maxsize if self._layout is None else KERNEL_ROWS

    @override
    def product(self, rows: Tensor) -> Tensor:
        """Multiply ``rows`` [m, in] in bf16 and add the bias: [m, out]."""
        rows = rows.to(torch.bfloat16)
        if self.inputs is not None:
            rows = rows * self.inputs
        y = self.kernel(rows.contiguous()) if rows.shape[0] <= self.kernel_rows else rows @ self.unpack().t()
        return y if self.bias is None else y + self.bias

    def kernel(self, rows: Tensor) -> Tensor:
        """Multiply ``rows`` bf16 [m, in] by the packed weight: [m, out], without ``inputs`` and bias."""
        product: Tensor = torch.ops.aten._weight_int4pack_mm(rows, self.packed, self.group_size, self.scale_zero)
        return product

    def unpack(self) -> Tensor:
        """Return the weight without ``inputs``, bf16 [out, in]."""
        assert self._layout is not None
        if HAS_TRITON:
            from objectives.packing.tinygemm_unpack import unpack

            weight: Tensor = unpack(self.packed, self._layout, self.scale_zero)
            return weight
        return self.unpack_by_hand()

    def unpack_by_hand(self) -> Tensor:
        """Return the same as :meth:`unpack`, by torch's own operations."""
        blocks = _nibbles(self.packed)[:, :, self._layout].view(*self.packed.shape[:2], ROWS, -1)
        codes = blocks.transpose(1, 2).reshape(self.out_features, -1, self.group_size).to(torch.bfloat16) - 8
        scale, zero = self.scale_zero.permute(2, 1, 0).unsqueeze(3)
        return torch.addcmul(zero, codes, scale).reshape(self.out_features, self.in_features)
