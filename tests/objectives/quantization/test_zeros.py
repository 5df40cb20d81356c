"""Where the zero of a grid may lie, and what it costs."""

from __future__ import annotations

import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

from objectives.protocols.optional import BlockStored
from objectives.quantization.grid import SHRINKS, round_to_grid
from tests.objectives.recipes import built, choices

ONE_SIDED = torch.rand(16, 128, generator=torch.Generator().manual_seed(1)) * 0.1
WEIGHT = torch.randn(16, 128, generator=torch.Generator().manual_seed(0)) * 0.05
IMPORTANCE = torch.rand(128, generator=torch.Generator().manual_seed(2)) + 0.1


def error(weight: torch.Tensor, restored: torch.Tensor) -> float:
    return float(((restored - weight).square() * IMPORTANCE).sum())


@pytest.mark.parametrize("weight", [WEIGHT, -WEIGHT, ONE_SIDED, -ONE_SIDED])
def test_zeros_in_the_middle_are_none_and_beat_the_engines_own_rounding(weight: torch.Tensor) -> None:
    codes = round_to_grid(weight, IMPORTANCE, 4, 32, SHRINKS["mse"], "middle")
    assert not codes.zero.any()
    assert codes.values.min() >= 0
    assert codes.values.max() <= 15
    own = torch.from_numpy(dequantize(quantize(weight.numpy(), Type.Q4_0), Type.Q4_0))
    assert error(weight, codes.dequantize()) < error(weight, own)


@pytest.mark.parametrize("weight", [WEIGHT, ONE_SIDED])
def test_a_freer_zero_costs_less(weight: torch.Tensor) -> None:
    places = ("free", "whole", "middle")
    errors = [
        error(weight, round_to_grid(weight, IMPORTANCE, 4, 32, SHRINKS["mse"], each).dequantize()) for each in places
    ]  # type: ignore[arg-type]
    assert errors[0] < errors[1] < errors[2]


def test_the_whole_range_is_covered_without_a_search() -> None:
    for weight in (WEIGHT, -WEIGHT):
        codes = round_to_grid(weight, IMPORTANCE, 4, 32, SHRINKS["min_max"], "middle")
        steps = (codes.dequantize() - weight).abs().view(16, 4, 32) / codes.scale.abs().unsqueeze(2)
        assert steps.max() <= 1.05  # the end without a code of its own lies a step away, and scales are rounded


@pytest.mark.parametrize("name", choices("quantization"))
def test_every_quantizer_of_ours_suits_its_codes_to_blocks(name: str) -> None:
    quantizer = built("quantization", name)
    assert isinstance(quantizer, BlockStored)
    suited = quantizer.stored_in_blocks(32)
    rounding = getattr(suited, "rounding", suited)
    assert (suited.scheme, rounding.group_size, rounding.zero) == ("weight_only", 32, "middle")
    assert suited.bits == quantizer.bits
