"""Attention masks as engines take them: floats that are added to the scores."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDDEN = np.float32(-1e30)
"""The summand for the score of a token that must not be seen. It is finite, so that rows with no other give numbers."""


def bidirectional(ids: NDArray[Any], seen: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Return the additive mask [rows, 1, 1, tokens] for ``ids`` [rows, tokens]: one row for all tokens.

    ``seen``: bool [rows, tokens], False where a token does not count; None where all do.
    """
    rows, tokens = ids.shape
    mask = np.zeros((rows, 1, 1, tokens), np.float32)
    if seen is not None:
        np.copyto(mask, HIDDEN, where=~seen[:, None, None, :])
    return mask


def encoder_inputs(
    names: Collection[str], ids: NDArray[Any], seen: NDArray[np.bool_] | None, types: NDArray[Any] | None
) -> dict[str, NDArray[Any]]:
    """Return the inputs of an encoder's graph by name: ids, mask, and types where it takes some (``names``)."""
    inputs = {"ids": ids, "mask": bidirectional(ids, seen)}
    return {**inputs, "types": np.zeros_like(ids) if types is None else types} if "types" in names else inputs


def causal(rows: int, tokens: int, total: int, seen: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Return the additive mask [rows, 1, tokens, total] for a pass that reads the last ``tokens`` of ``total``.

    ``seen``: bool [rows, total], False where a token does not count; None where all do.
    """
    mask = np.zeros((rows, 1, tokens, total), np.float32)
    if tokens > 1:
        mask[:] = np.triu(np.full((tokens, total), HIDDEN), k=total - tokens + 1)
    if seen is not None:
        np.copyto(mask, HIDDEN, where=~seen[:, None, None, :])
    return mask
