"""Rounds rows on a GPU to int8 or fp8, and scales their sums: one Triton launch each, where there is Triton."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import pad

from objectives.packing.row_codes import largest

_COMPILER = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
HAS_TRITON = find_spec("triton") is not None and _COMPILER is not None
"""True where Triton can be used; it needs a C compiler, since it builds a launcher in C for every kernel."""


def round_rows(x: Tensor, dtype: torch.dtype, rows: int = 0) -> tuple[Tensor, Tensor]:
    """Round each row of ``x`` [m, k] relative to its largest magnitude.

    Returns codes of ``dtype`` (int8 or float8_e4m3fn), filled up to ``rows`` rows with rows of 0, and scales fp32
    [m, 1].
    """
    if HAS_TRITON:
        from objectives.packing import rows_triton

        codes, scale = rows_triton.round_rows(x.contiguous(), dtype, rows)
        return codes, scale
    x = x.float()
    scale = x.abs().amax(dim=1, keepdim=True).div_(largest(dtype)).clamp_min_(1e-30)
    scaled = x / scale
    codes = (scaled.round_() if dtype == torch.int8 else scaled).to(dtype)
    return pad(codes.view(torch.uint8), (0, 0, 0, max(0, rows - len(x)))).view(dtype), scale


def scale_sums(sums: Tensor, rows: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    """Scale int32 ``sums`` [>= m, n] by ``rows`` [m, 1] and ``columns`` [n], and add ``bias`` [n]: bf16 [m, n]."""
    if HAS_TRITON:
        from objectives.packing import rows_triton

        scaled: Tensor = rows_triton.scale_sums(sums, rows, columns, bias)
        return scaled
    y = sums[: len(rows)] * rows * columns
    return (y if bias is None else y + bias).to(torch.bfloat16)
