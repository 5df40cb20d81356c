"""Linears of GPUs on the CPU: the same modules in torch's own operations, which is all that a CPU needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import NoKernel
from objectives.packing import rows, tinygemm
from objectives.packing.fp8 import Fp8Linear
from objectives.packing.gpu import GpuLinear
from objectives.packing.int8_rounding import round_symmetric
from objectives.packing.int_mm import IntMmLinear
from objectives.quantization.grid import round_to_grid
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner
from tests.objectives.conftest import Tiny


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "HAS_TRITON", False)


def source(width: int = 64, out: int = 96) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width, out).bfloat16().requires_grad_(False)


@pytest.mark.parametrize(("kind", "most"), [(IntMmLinear, 0.015), (Fp8Linear, 0.05)])
@pytest.mark.parametrize("count", [1, 40])
def test_eight_bits_give_nearly_the_outputs_of_sixteen(kind: Any, most: float, count: int) -> None:
    linear = source()
    x = torch.randn(2, count, 64).bfloat16()
    wanted = x.float() @ linear.weight.float().t() + linear.bias.float()
    found = kind(linear.weight.detach(), linear.bias)(x)
    assert found.dtype == torch.bfloat16
    assert ((found.float() - wanted).norm() / wanted.norm()).item() < most


def test_int8_multiplies_the_integers_of_rows_and_weights() -> None:
    linear = source()
    x = torch.randn(5, 64).bfloat16()
    codes, steps = round_symmetric(x)
    weight, scale = round_symmetric(linear.weight)
    wanted = (codes @ weight.t()) * steps * scale.t() + linear.bias.float()
    assert torch.equal(IntMmLinear(linear.weight.detach(), linear.bias)(x), wanted.bfloat16())


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_rows_are_filled_up_with_zeros(dtype: torch.dtype) -> None:
    codes, scale = rows.round_rows(torch.randn(3, 16), dtype, 8)
    assert codes.shape == (8, 16)
    assert codes[:3].float().abs().amax(dim=1).tolist() == [rows.largest(dtype)] * 3
    assert not codes[3:].float().any()
    assert scale.shape == (3, 1)


@pytest.mark.parametrize("tiles", [2, 4, 8])
def test_a_weight_is_unpacked_from_any_order_of_nibbles(tiles: int) -> None:
    """The layout is learned on a card; here it is made up."""
    width, out = 16 * tiles * 3, 16
    codes = round_to_grid(torch.randn(out, width), torch.ones(width), 4, 32, (1.0,))
    layout = torch.randperm(8 * 16 * tiles)
    blocks = codes.values.view(out // 8, 8, -1, 16 * tiles).transpose(1, 2).flatten(2).to(torch.uint8)
    nibbles = torch.empty_like(blocks)
    nibbles[:, :, layout] = blocks
    packed = (nibbles[..., ::2] | nibbles[..., 1::2] << 4).contiguous().view(torch.int32)
    linear = tinygemm.TinygemmLinear.__new__(tinygemm.TinygemmLinear)
    GpuLinear.__init__(linear, out, width, None)
    linear.group_size = 32
    linear.packed = packed.view(out // 8, 3, 32, -1)
    linear.scale_zero = torch.stack([codes.scale.t(), codes.zero.t()], dim=2).bfloat16()
    linear._layout = layout
    assert torch.equal(linear.unpack_by_hand(), codes.dequantize().bfloat16())


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [((64, 128, 32), 8), ((64, 192, 64), 4), ((8, 96, 32), 2), ((8, 96, 64), None), ((4, 64, 32), None)],
)
def test_shapes_that_tinygemm_takes(shape: tuple[int, int, int], tiles: int | None) -> None:
    if tiles is None:
        with pytest.raises(NoKernel, match="int4 on CUDA needs"):
            tinygemm.inner_tiles(*shape)
    else:
        assert tinygemm.inner_tiles(*shape) == tiles


def test_a_layer_whose_shape_no_kernel_takes_stays_in_16_bits_and_is_named(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = Cpu.pack

    def refuse(self: Cpu, linear: nn.Linear, bits: int, *more: Any) -> nn.Module:
        if bits == 8 and linear.out_features != linear.in_features:
            raise NoKernel("only squares")
        return pack(self, linear, bits, *more)

    monkeypatch.setattr(Cpu, "pack", refuse)
    model = tiny("llama").copy()
    RoundToNearest(bits=8, predicts=False).quantize_(model, Statistics(tiny("llama"), {}), Cpu())
    assert any("only squares, kept in 16 bits" in note.text for note in model.notes)
    with torch.inference_mode():
        assert TorchRunner(model).logits(torch.arange(6).view(1, 6)).isfinite().all()
