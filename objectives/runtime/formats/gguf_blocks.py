"""Writes our codes as the blocks of GGUF, which hold 32 weights of a row each; nothing is rounded but scales, to fp16.

Q8_0: a scale and 32 codes of 8 bits. Q4_0: a scale and 32 codes of 4 bits, the weight is (code - 8) * scale. Q4_1: a
minimum beside it, the weight is code * scale + minimum. The first 16 weights of a block are in the low halves of bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from objectives.errors import Unsupported

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

    from objectives.runtime.engines.weights import Dense, Rounded

BLOCK = 32
_MIDDLE = 8


def blocks_of(name: str, stored: Dense | Rounded) -> tuple[NDArray[Any], GGMLQuantizationType]:
    """Return a matrix [out, in] as a GGUF file holds it, with its type. Raises Unsupported where no type can hold it.

    ``name``: its name, for the message.
    """
    from gguf import GGMLQuantizationType as Type
    from gguf.quants import quantize

    from objectives.runtime.engines.weights import Dense

    if isinstance(stored, Dense):
        kind = Type.F32 if stored.bits == 32 else Type.BF16  # bf16 to bf16 changes nothing
        return quantize(np.ascontiguousarray(stored.values), kind), kind
    if stored.inputs is not None:
        raise Unsupported(f"{name}: GGUF has no place for AWQ's factors of inputs: quantization=gptq")
    if stored.group_size % BLOCK:
        raise Unsupported(f"{name}: GGUF's blocks have {BLOCK} inputs, a scale of this matrix has {stored.group_size}")
    if stored.bits == 8:
        return _joined(_scales(stored), stored.codes.reshape(-1, BLOCK).view(np.uint8)), Type.Q8_0
    assert stored.zeros is not None
    if (stored.zeros == _MIDDLE).all():
        return _joined(_scales(stored), _pairs(stored)), Type.Q4_0
    minima = _of_blocks(-stored.zeros.astype(np.float32) * stored.scales, stored)
    return _joined(_scales(stored), minima, _pairs(stored)), Type.Q4_1


def _scales(stored: Rounded) -> NDArray[np.uint8]:
    return _of_blocks(stored.scales, stored)


def _of_blocks(values: NDArray[np.float32], stored: Rounded) -> NDArray[np.uint8]:
    """Return ``values`` [out, groups], one of each block in fp16, as the bytes [blocks, 2]."""
    with np.errstate(over="ignore"):
        narrow = np.repeat(values, stored.group_size // BLOCK, axis=1).astype(np.float16)
    if not np.isfinite(narrow).all():
        raise Unsupported("a scale exceeds what fp16 holds")
    return narrow.reshape(-1, 1).view(np.uint8)


def _pairs(stored: Rounded) -> NDArray[np.uint8]:
    halves = stored.codes.astype(np.uint8).reshape(-1, 2, BLOCK // 2)
    return halves[:, 0] | (halves[:, 1] << np.uint8(4))


def _joined(*parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return blocks of these parts, as rows of bytes; GGUF's writer wants the rows of the matrix."""
    return np.concatenate(parts, axis=1)
