"""Codes keep their values in the blocks of GGUF, but for scales in fp16; gguf's own reader is the judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

from objectives.errors import Unsupported
from objectives.runtime.engines.weights import Dense, Rounded
from objectives.runtime.formats.gguf_blocks import blocks_of

NUMBERS = np.random.default_rng(0)
OUT, IN = 6, 128


def rounded(bits: int, groups: int, zeros: Any = None) -> Rounded:
    low, high, kind = ((-127, 128, np.int8), (0, 16, np.uint8))[bits == 4]
    codes = NUMBERS.integers(low, high, (OUT, IN)).astype(kind)
    scales = NUMBERS.uniform(1e-4, 2e-2, (OUT, groups)).astype(np.float32) * NUMBERS.choice([-1, 1], (OUT, groups))
    return Rounded(codes, scales.astype(np.float32), zeros, bits)


@pytest.mark.parametrize(
    ("stored", "kind", "bits"),
    [
        (rounded(8, 1), Type.Q8_0, 8.5),
        (rounded(8, 4), Type.Q8_0, 8.5),
        (rounded(4, 4, np.full((OUT, 4), 8, np.uint8)), Type.Q4_0, 4.5),
        (rounded(4, 2, np.full((OUT, 2), 8, np.uint8)), Type.Q4_0, 4.5),
        (rounded(4, 4, NUMBERS.integers(0, 16, (OUT, 4)).astype(np.uint8)), Type.Q4_1, 5.0),
        (rounded(4, 1, NUMBERS.integers(0, 16, (OUT, 1)).astype(np.uint8)), Type.Q4_1, 5.0),
    ],
)
def test_blocks_hold_the_weights_of_our_codes(stored: Rounded, kind: Type, bits: float) -> None:
    data, found = blocks_of("layer", stored)
    assert found == kind
    assert data.nbytes * 8 == OUT * IN * bits
    weights = dequantize(data.reshape(OUT, -1), kind)
    largest = np.abs(stored.scales).max() * (127 if stored.bits == 8 else 16)
    assert np.abs(weights - stored.dequantized()).max() <= largest * 2**-10


def test_codes_are_the_engines_own_where_it_rounds_as_we_do() -> None:
    """Bit for bit, and so are the places of the nibbles."""
    values = NUMBERS.standard_normal((OUT, IN)).astype(np.float32)
    blocks = quantize(values, Type.Q4_0).reshape(-1, 18)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32).reshape(OUT, -1)
    weights = dequantize(blocks.reshape(OUT, -1), Type.Q4_0)
    codes = np.round(weights / np.repeat(scales, 32, axis=1) + 8).astype(np.uint8)
    data, _ = blocks_of("layer", Rounded(codes, scales, np.full(scales.shape, 8, np.uint8), 4))
    assert (data == blocks).all()


@pytest.mark.parametrize(("bits", "kind"), [(32, Type.F32), (16, Type.BF16)])
def test_floats_stay_what_they_are(bits: int, kind: Type) -> None:
    values = NUMBERS.standard_normal((OUT, IN)).astype(np.float32)
    values = values.view(np.uint32).__and__(np.uint32(0xFFFF0000)).view(np.float32) if bits == 16 else values
    data, found = blocks_of("layer", Dense(values, bits))
    assert found == kind
    assert (dequantize(data, kind) == values).all()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (Rounded(np.zeros((2, 48), np.int8), np.ones((2, 1), np.float32), None, 8), "blocks have 32 inputs"),
        (Rounded(np.zeros((2, 32), np.uint8), np.ones((2, 2), np.float32), np.zeros((2, 2), np.uint8), 4), "has 16"),
        (Rounded(np.zeros((2, 32), np.int8), np.full((2, 1), 1e5, np.float32), None, 8), "fp16"),
        (
            Rounded(np.zeros((2, 32), np.int8), np.ones((2, 1), np.float32), None, 8, np.ones(32, np.float32)),
            "quantization=gptq",
        ),
    ],
)
def test_what_no_block_holds_is_refused(stored: Rounded, said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        blocks_of("layer", stored)
