"""Attention masks as engines take them: floats that are added to the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDDEN = np.float32(-1e30)
"""What is added to the score of a token that must not be seen; finite, so that rows without any give numbers."""


def bidirectional(ids: NDArray[Any], seen: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """[rows, 1, 1, tokens], one row for all, for ``ids`` [rows, tokens], of which those count that are ``seen``."""
    rows, tokens = ids.shape
    mask = np.zeros((rows, 1, 1, tokens), np.float32)
    if seen is not None:
        np.copyto(mask, HIDDEN, where=~seen[:, None, None, :])
    return mask


def causal(rows: int, tokens: int, total: int, seen: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """[rows, 1, tokens, total], where the last ``tokens`` of ``total`` are read now."""
    mask = np.zeros((rows, 1, tokens, total), np.float32)
    if tokens > 1:
        mask[:] = np.triu(np.full((tokens, total), HIDDEN), k=total - tokens + 1)
    if seen is not None:
        np.copyto(mask, HIDDEN, where=~seen[:, None, None, :])
    return mask
