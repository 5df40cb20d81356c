"""4 bits, weight-only: two weights per byte, one bf16 scale and zero per group of input channels.

aten's CPU kernel reads its own layout; decode uses it as it is. For many rows W is unpacked from that same
layout, so nothing is stored twice. The layout (blocks of output rows, nibbles interleaved inside a block)
is aten's private choice per instruction set: we learn it by packing a known pattern, and if this build
packs in a way we do not know, the kernel simply serves every row count. Files hold a plain layout instead, which
every CPU can repack into its own: :meth:`Int4Linear.repack_`.

A weight is ``(code - 8) * scale + zero``, code in 0..15.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from objectives.errors import Unsupported
from objectives.packing.linear import PackedLinear

GROUP_SIZES = (32, 64, 128, 256)
SAMPLED = 64
"""The group size with which paths are timed: for others they take nearly as long."""


def check_shape(out_features: int, in_features: int, group_size: int) -> None:
    """Raise Unsupported where aten's kernel would refuse or read past the end."""
    if group_size not in GROUP_SIZES:
        raise Unsupported(f"int4 group size must be one of {GROUP_SIZES}, got {group_size}")
    if in_features % group_size or out_features % 16:
        raise Unsupported(
            f"int4 needs in_features % {group_size} == 0 and out_features % 16 == 0, "
            f"got {in_features} -> {out_features}"
        )


def pack(codes: Tensor) -> Tensor:
    """Pack int32 ``codes`` [out, in] in 0..15 into aten's layout, uint8 [out, in / 2]."""
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1)
    return packed


def _block_orders(block: int) -> list[Tensor]:
    """Return candidate layouts of a block of output rows: the row that each nibble position holds."""
    half = block // 2
    bytes_ = torch.arange(half)
    orders = [torch.cat([bytes_, bytes_ + half]), torch.cat([bytes_ * 2, bytes_ * 2 + 1])]
    if block == 64:  # AVX-512: byte d holds rows d, d+32; byte 16+d holds rows d+16, d+48
        low = torch.where(bytes_ < 16, bytes_, bytes_ % 16 + 16)
        orders.insert(0, torch.cat([low, low + 32]))
    return orders


@cache
def block_layout(block: int) -> Tensor | None:
    """Return the row that each nibble of a block holds, low nibbles first; None where this build packs otherwise."""
    pattern = torch.randint(0, 16, (block, 32), generator=torch.Generator().manual_seed(0))
    packed = pack(pattern).reshape(1, 32, block // 2)
    nibbles = torch.cat([packed & 15, packed >> 4], dim=2)[0].t()
    for order in _block_orders(block):
        if torch.equal(pattern[order].to(torch.uint8), nibbles):
            return order
    return None


@cache
def block_rows() -> int | None:
    """Return how many output rows aten packs together on this CPU (64 with AVX-512, 32 with AVX2).

    Rows that fill no block are packed as a smaller one. None where this build packs otherwise.
    """
    pattern = torch.randint(0, 16, (128 + 16, 32), generator=torch.Generator().manual_seed(1))
    for block in (64, 32):
        if any(block_layout(rows) is None for rows in range(16, block + 1, 16)):
            continue
        if torch.equal(unpack_codes(pack(pattern), block).to(torch.int64), pattern.t()):
            return block
    return None


def unpack_codes(packed: Tensor, block: int) -> Tensor:
    """Unpack the codes that :func:`pack` packed in blocks of ``block`` rows: transposed, uint8 [in, out]."""
    whole = packed.shape[0] - packed.shape[0] % block
    parts = [_unpack_blocks(packed[:whole], block)] if whole else []
    if whole < packed.shape[0]:
        parts.append(_unpack_blocks(packed[whole:], packed.shape[0] - whole))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _unpack_blocks(packed: Tensor, block: int) -> Tensor:
    out_features, half_in = packed.shape
    order = block_layout(block)
    assert order is not None
    blocks = packed.reshape(out_features // block, half_in * 2, block // 2)
    nibbles = torch.cat([blocks & 15, blocks >> 4], dim=2)
    if not torch.equal(order, torch.arange(block)):
        nibbles = nibbles[:, :, torch.argsort(order)]
    return nibbles.permute(1, 0, 2).reshape(half_in * 2, out_features)


def pairs(codes: Tensor) -> Tensor:
    """Pack ``codes`` [out, in] as files hold them, uint8 [out, in / 2]: byte j holds 2j (low nibble) and 2j + 1."""
    codes = codes.to(torch.uint8)
    return (codes[:, ::2] | codes[:, 1::2] << 4).contiguous()


def from_pairs(packed: Tensor) -> Tensor:
    """Unpack the codes, uint8 [out, in], that :func:`pairs` packed."""
    return torch.stack([packed & 15, packed >> 4], dim=2).flatten(1)


class Int4Linear(PackedLinear):
    """A linear of 4-bit weights.

    ``packed``: uint8 [out, in / 2]; ``scale_zero``: bf16 [in / group, out, 2]; ``inputs``: bf16 [in] or None, factors
    of x. ``packed`` comes in the layout of :func:`pairs`; :meth:`repack_` moves it to aten's.
    """

    kind = "int4"
    packed: Tensor
    scale_zero: Tensor
    inputs: Tensor | None
    weight = None  # as in Int8Linear

    def __init__(self, packed: Tensor, scale_zero: Tensor, bias: Tensor | None, inputs: Tensor | None = None) -> None:
        super().__init__(packed.shape[1] * 2, packed.shape[0], bias)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scale_zero", scale_zero)
        if inputs is None:
            self.inputs = None  # a buffer is looked up more slowly, hundreds of times a token
        else:
            self.register_buffer("inputs", inputs)
        self.group_size = self.in_features // scale_zero.shape[0]
        self.settled = False
        self._block = block_rows()

    @classmethod
    def from_codes(
        cls, codes: Tensor, scale: Tensor, zero: Tensor, bias: Tensor | None, inputs: Tensor | None = None
    ) -> Int4Linear:
        """Build from ``codes`` int [out, in] in 0..15, ``scale`` and ``zero`` [out, in / group] and ``inputs`` [in].

        Raises Unsupported for a shape without kernel.
        """
        check_shape(codes.shape[0], codes.shape[1], codes.shape[1] // scale.shape[1])
        scale_zero = torch.stack([scale.t(), zero.t()], dim=2).to(torch.bfloat16).contiguous()
        return cls(pairs(codes), scale_zero, bias, None if inputs is None else inputs.to(torch.bfloat16)).repack_()

    @classmethod
    @override
    def sample(cls, weight: Tensor) -> Int4Linear:
        outputs, inputs = weight.shape
        groups = weight.view(outputs, -1, min(SAMPLED, inputs))
        scale = groups.abs().amax(dim=2) / 8
        codes = (groups / scale.unsqueeze(2) + 8).round_().clamp_(0, 15)
        return cls.from_codes(codes.view(outputs, inputs), scale, torch.zeros_like(scale), None)

    @property
    @override
    def packed_paths(self) -> tuple[str, ...]:
        return ("kernel",) if self._block is None else ("kernel", "unpacked")

    @property
    @override
    def kernel_rows(self) -> int:
        """Return the number of rows for which aten's kernel costs as much as unpacking W once and a GEMM.

        The kernel's time grows with every row. Unpacking gains less from threads and has a fixed cost (crossings at one
        and two threads: docs/log.md). No limit where this build's layout is not known.
        """
        if self._block is None:
            return sys.maxsize
        fixed = (6 if self._block == 64 else 2) << 20
        return 32 + 16 * min(torch.get_num_threads(), 4) + fixed // (self.in_features * self.out_features)

    @override
    def repack_(self) -> Self:
        """Move the codes into the layout that aten reads on this CPU; returns self."""
        if not self.settled:
            self.packed = pack(from_pairs(self.packed))
            self.settled = True
        return self

    @property
    def codes(self) -> Tensor:
        """Return the codes in the layout of :func:`pairs`, uint8 [out, in / 2]."""
        if not self.settled:
            return self.packed
        if self._block is not None:
            return pairs(unpack_codes(self.packed, self._block).t())
        ones = torch.ones_like(self.scale_zero)
        ones[..., 1] = 8  # (code - 8) * 1 + 8: the kernel multiplies the codes themselves
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        each = torch.eye(self.in_features, dtype=torch.bfloat16)
        return pairs(product(each, self.packed, self.group_size, ones).t())

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows if self.inputs is None else rows * self.inputs.to(rows.dtype)

    @override
    def kernel(self, rows: Tensor) -> Tensor:
        """Multiply by aten's kernel, on contiguous bf16 rows: with fp32 rows it would run a reference loop."""
        narrow = self._scaled(rows).to(torch.bfloat16).contiguous()
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            narrow, self.packed, self.group_size, self.scale_zero
        )
        return product.to(rows.dtype)

    @override
    def unpacked(self, rows: Tensor) -> Tensor:
        """Multiply the scaled rows by the weight without ``inputs``, so that no product of both is rounded."""
        return super().unpacked(self._scaled(rows))

    @override
    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Unpack a slice of W, with ``inputs`` multiplied in."""
        whole = self._stored(0, self.out_features, dtype)[start:stop]
        return whole if self.inputs is None else whole * self.inputs.to(dtype)

    @override
    def _slice(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self._stored(start, stop, dtype)

    def _stored(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Unpack a slice of whole blocks, without ``inputs``; in fp32, which CPUs compute fastest."""
        assert self._block is not None
        codes = unpack_codes(self.packed[start:stop], self._block).float()
        groups = codes.view(-1, self.group_size, codes.shape[1])
        scale, zero = self.scale_zero[:, start:stop].float().permute(2, 0, 1).contiguous().unsqueeze(2)
        torch.addcmul(zero - 8 * scale, groups, scale, out=groups)
        return codes.to(dtype).t()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "codes"] = self.codes
