"""Masks: what goes, and SparseGPT's compensation against the recursion spelled out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from objectives.calibration.moments import Moment
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.packing.bf16 import Bf16Linear
from objectives.pruning.masking import Pattern
from objectives.pruning.sparsegpt import SparseGpt, masked
from objectives.pruning.wanda import Wanda
from tests.objectives.conftest import Tiny
from tests.objectives.families import each_core_family
from tests.objectives.recipes import built

Collected = Callable[[str], Statistics]
each_mask = pytest.mark.parametrize("choice", ["wanda", "sparsegpt"])
PATTERNS: list[tuple[float, Pattern]] = [(0.25, "unstructured"), (0.5, "unstructured"), (0.5, "2:4")]
each_pattern = pytest.mark.parametrize(("ratio", "pattern"), PATTERNS)


def problem(out: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight and a strongly correlated second moment."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4 * width, width, generator=generator) @ torch.randn(width, width, generator=generator)
    return torch.randn(out, width, generator=generator), inputs.t() @ inputs / len(inputs)


def naive(weight: Tensor, second: Tensor, gone: Tensor, damping: float) -> Tensor:
    """Optimal brain surgeon, channel by channel and row by row, for given zeros."""
    second = second.double() + damping * second.diagonal().mean().double() * torch.eye(len(second))
    result = weight.double().clone()
    for row, zeros in zip(result, gone):
        inverse = torch.linalg.inv(second)
        for channel in range(len(second)):
            if zeros[channel]:
                row -= row[channel] / inverse[channel, channel] * inverse[:, channel]
            inverse -= torch.outer(inverse[:, channel], inverse[channel]) / inverse[channel, channel]
    return result.float()


@each_pattern
@pytest.mark.parametrize("width", [8, 64, 136])
def test_sparsegpt_is_the_recursion_spelled_out(ratio: float, pattern: Pattern, width: int) -> None:
    weight, second = problem(6, width)
    found = masked(weight, second, ratio, pattern, damping=0.01)
    gone = found == 0
    torch.testing.assert_close(found, naive(weight, second, gone, 0.01).masked_fill(gone, 0), rtol=1e-3, atol=1e-3)
    assert gone.float().mean() == pytest.approx(ratio, abs=0.01)


def error(weight: Tensor, other: Tensor, second: Tensor) -> float:
    return float((((weight - other) @ second) * (weight - other)).sum())


@each_pattern
def test_sparsegpt_loses_less_than_wanda(ratio: float, pattern: Pattern) -> None:
    weight, second = problem(32, 64)
    moment = Moment(torch.zeros(64), second)
    ours = SparseGpt(ratio=ratio, pattern=pattern).masked(weight, moment)
    theirs = Wanda(ratio=ratio, pattern=pattern).masked(weight, moment)
    assert error(weight, ours, second) < error(weight, theirs, second)


@each_mask
@each_pattern
@each_core_family
def test_the_share_of_zeros_is_the_one_asked(
    tiny: Tiny, statistics: Collected, choice: str, ratio: float, pattern: Pattern, family: str
) -> None:
    model = masked_model(tiny, statistics, choice, family, ratio=ratio, pattern=pattern)
    for block in model.blocks():
        for path in block.stack.block_linears:
            zeros = block.linear(path).weight == 0
            assert zeros.float().mean() == pytest.approx(ratio, abs=0.03 if choice == "sparsegpt" else 0.005)
            if pattern == "2:4":
                assert (zeros.view(len(zeros), -1, 4).sum(dim=2) == 2).all()
    assert model.simulated
    assert not model.widths


def masked_model(tiny: Tiny, statistics: Collected, choice: str, family: str, **settings: object) -> LoadedModel:
    model = tiny(family).copy()
    built("pruning", choice, **settings).prune_(model, statistics(family))
    return model


@each_mask
def test_two_of_four_are_half(tiny: Tiny, statistics: Collected, choice: str) -> None:
    with pytest.raises(Unsupported, match=r"pruning\.ratio: pattern 2:4 removes 0\.5, got 0\.3"):
        masked_model(tiny, statistics, choice, "llama", ratio=0.3, pattern="2:4")


def test_two_of_four_need_fours() -> None:
    with pytest.raises(Unsupported, match=r"2:4 needs a multiple of 4 inputs, got 6"):
        Wanda(ratio=0.5, pattern="2:4").masked(torch.ones(2, 6), Moment(torch.zeros(6), torch.eye(6)))


class Sparse(Cpu):
    """A CPU that pretends to store two of four weights, but not of layers with 32 outputs."""

    @property
    def sparse(self) -> bool:
        return True

    def pack_sparse(self, linear: nn.Linear) -> nn.Module:
        if linear.out_features == 32:
            raise Unsupported("no kernel")
        return Bf16Linear.from_linear(linear)


@pytest.mark.parametrize(
    ("pattern", "bits", "real"), [("2:4", 16, True), ("2:4", 4, False), ("unstructured", 16, False)]
)
def test_a_device_with_a_sparse_kernel_makes_two_of_four_real(
    tiny: Tiny, statistics: Callable[[str], Statistics], pattern: str, bits: int, real: bool
) -> None:
    model = tiny("llama").copy()
    built("pruning", "wanda", ratio=0.5, pattern=pattern).prune_(model, statistics("llama"))
    built("quantization", "gptq", bits=bits).quantize_(model, statistics("llama"), Sparse())
    assert model.simulated is not real
    assert any("its zeros are multiplied" in note.text for note in model.notes) is real
