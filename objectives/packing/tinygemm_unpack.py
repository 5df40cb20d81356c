"""One Triton kernel that unpacks a weight from tinygemm's layout: every byte read once, every weight written once."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCKS = 4
"""Blocks of one row of blocks that a program writes."""


@triton.jit  # type: ignore[untyped-decorator]
def _unpack(  # type: ignore[no-untyped-def]
    packed, layout, scale_zero, out, in_features, out_features, group,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Write ``BLOCKS`` blocks of ``ROWS`` output channels and ``WIDTH`` inputs each."""
    above = tl.program_id(0).to(tl.int64) * ROWS
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, WIDTH)[None, :]
    place = tl.load(layout + row * WIDTH + column)
    shift = ((place & 1) * 4).to(tl.uint8)
    across = in_features // WIDTH
    for step in range(BLOCKS):
        block = tl.program_id(1) * BLOCKS + step
        inside, left = block < across, block * WIDTH
        held = packed + (above // ROWS * across + block) * (ROWS * WIDTH // 2)
        byte = tl.load(held + place // 2, mask=inside, other=0)
        code = ((byte >> shift) & 15).to(tl.float32) - 8.0
        pair = scale_zero + (((left + column) // group) * out_features + above + row) * 2
        scale, zero = tl.load(pair, mask=inside, other=0.0), tl.load(pair + 1, mask=inside, other=0.0)
        weight = code * scale.to(tl.float32) + zero.to(tl.float32)
        tl.store(out + (above + row) * in_features + left + column, weight.to(tl.bfloat16), mask=inside)


@torch.library.custom_op("paretune::tinygemm_unpack", mutates_args=())
def unpack(packed: Tensor, layout: Tensor, scale_zero: Tensor) -> Tensor:
    """Unpack a weight, bf16 [out, in], from ``packed`` int32 [out / 8, in / width, ...].

    ``layout``: int32, the place of each weight in a block of 8 x width; ``scale_zero``: bf16 [in / group, out, 2].
    """
    out: Tensor = _empty(packed, layout, scale_zero)
    out_features, in_features = out.shape
    rows, width, across = out_features // packed.shape[0], in_features // packed.shape[1], packed.shape[1]
    launch: Any = _unpack[(packed.shape[0], triton.cdiv(across, BLOCKS))]
    launch(
        packed.view(torch.uint8), layout, scale_zero, out, in_features, out_features,
        in_features // scale_zero.shape[0], ROWS=rows, WIDTH=width, BLOCKS=BLOCKS,
    )  # fmt: skip
    return out


@unpack.register_fake
def _empty(packed: Tensor, layout: Tensor, scale_zero: Tensor) -> Tensor:
    out_features = scale_zero.shape[1]
    width = layout.shape[0] * packed.shape[0] // out_features
    empty: Tensor = scale_zero.new_empty(out_features, width * packed.shape[1])
    return empty
