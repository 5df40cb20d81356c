"""The largest code of each 8-bit type that rows are rounded to."""

from __future__ import annotations

import torch


def largest(dtype: torch.dtype) -> float:
    """Return the largest code of ``dtype``."""
    return 127.0 if dtype == torch.int8 else float(torch.finfo(dtype).max)
