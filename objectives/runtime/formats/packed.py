"""Packs codes of 4 bits into words, and refuses what engines cannot fuse: what packed checkpoints share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.runtime.engines.weights import Rounded, Stored

MIDDLE = 8
"""The code of zero, where 4 bits have no zeros of their own."""
IN_A_WORD = 8
"""Codes of 4 bits in a word of 32."""


def words(codes: NDArray[Any]) -> Tensor:
    """Pack ``codes`` [rows, n] in 0..15 into int32 [rows, n / 8], the first in the lowest bits.

    Rows that fill no word are filled up with zeros.
    """
    padded = np.pad(codes.astype(np.uint32), ((0, 0), (0, -codes.shape[1] % IN_A_WORD)))
    nibbles = padded.reshape(len(codes), -1, IN_A_WORD) << (4 * np.arange(IN_A_WORD, dtype=np.uint32))
    return torch.from_numpy(np.bitwise_or.reduce(nibbles, axis=2).view(np.int32))


def require_together(format: str, model: LoadedModel, stored: Mapping[str, Stored]) -> None:
    """Raise Unsupported where linears that read the same tensor, which engines fuse, have different bits.

    ``format``: its name, for the message.
    """
    names = {id(module): name for name, module in model.module.named_modules()}
    for block in model.blocks():
        for paths in block.stack.shared_inputs:
            widths = {bits_of(stored[names[id(block.linear(path))]]) for path in paths}
            if len(widths) > 1:
                raise Unsupported(
                    f"format={format}: engines fuse {', '.join(paths)}; in {block.name} they have "
                    f"{' and '.join(map(str, sorted(widths)))} bits"
                )


def bits_of(stored: Stored) -> int:
    """Return the bits of a matrix in a checkpoint, where floats have 16."""
    return stored.bits if isinstance(stored, Rounded) else 16
