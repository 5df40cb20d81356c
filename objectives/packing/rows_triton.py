"""Triton kernels around 8-bit products: rounding rows, and scaling outputs, one launch each."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from objectives.packing.row_codes import largest

BLOCK = 1024
"""Elements of a row that a program handles at a time."""
WHOLE = 1.5 * 2**23
"""fp32 numbers this large are whole: adding it and taking it off rounds to the nearest, halves to even."""


@triton.jit  # type: ignore[untyped-decorator]
def _round_row(x, codes, scale, width, largest, INTEGERS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Round one row: one pass finds its largest value, another rounds, from cache."""
    row, places = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    top = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, width, BLOCK):
        at = start + places
        top = tl.maximum(top, tl.abs(tl.load(x + row * width + at, mask=at < width, other=0.0).to(tl.float32)))
    step = tl.maximum(tl.max(top, axis=0) / largest, 1e-30)
    tl.store(scale + row, step)
    for start in range(0, width, BLOCK):
        at = start + places
        scaled = tl.load(x + row * width + at, mask=at < width, other=0.0).to(tl.float32) / step
        if INTEGERS:
            scaled = (scaled + WHOLE) - WHOLE
        tl.store(codes + row * width + at, scaled.to(codes.dtype.element_ty), mask=at < width)


@triton.jit  # type: ignore[untyped-decorator]
def _scale(sums, rows, columns, bias, out, width, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Scale a part of one row of integer sums."""
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    found = tl.load(sums + row * width + at, mask=inside).to(tl.float32) * tl.load(rows + row)
    found *= tl.load(columns + at, mask=inside)
    if HAS_BIAS:
        found += tl.load(bias + at, mask=inside).to(tl.float32)
    tl.store(out + row * width + at, found.to(tl.bfloat16), mask=inside)


@torch.library.custom_op("paretune::round_rows", mutates_args=())
def round_rows(x: Tensor, dtype: torch.dtype, rows: int) -> tuple[Tensor, Tensor]:
    """Round each row of ``x`` [m, k], contiguous, relative to its largest magnitude.

    Returns codes of ``dtype`` (int8 or float8_e4m3fn), filled up to ``rows`` rows with rows of 0, and scales fp32
    [m, 1].
    """
    codes, scale = _rounded(x, dtype, rows)
    if rows > len(x):
        codes[len(x) :].view(torch.uint8).zero_()
    launch: Any = _round_row[(len(x),)]
    launch(x, codes, scale, x.shape[1], largest(dtype), INTEGERS=dtype == torch.int8, BLOCK=BLOCK, WHOLE=WHOLE)
    return codes, scale


@round_rows.register_fake
def _rounded(x: Tensor, dtype: torch.dtype, rows: int) -> tuple[Tensor, Tensor]:
    filled = max(len(x), rows)
    return x.new_empty(filled, x.shape[1], dtype=dtype), x.new_empty(len(x), 1, dtype=torch.float32)


@torch.library.custom_op("paretune::scale_sums", mutates_args=())
def scale_sums(sums: Tensor, rows: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    """Scale int32 ``sums`` [>= m, n] by ``rows`` [m, 1] and ``columns`` [n], and add ``bias`` [n]: bf16 [m, n]."""
    out: Tensor = _scaled(sums, rows, columns, bias)
    width = sums.shape[1]
    launch: Any = _scale[(len(rows), triton.cdiv(width, BLOCK))]
    launch(sums, rows, columns, sums if bias is None else bias, out, width, HAS_BIAS=bias is not None, BLOCK=BLOCK)
    return out


@scale_sums.register_fake
def _scaled(sums: Tensor, rows: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    return sums.new_empty(len(rows), sums.shape[1], dtype=torch.bfloat16)
