"""Packed linears give the product with the weight they stand for, by whichever kernel, at any shape.

The kernels are chosen by what the CPU can do; here both choices are forced, on any CPU.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from objectives.errors import Unsupported
from objectives.packing import bf16, int4, int8, linear
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.capability import CpuKernels, cpu_kernels
from objectives.packing.codes import Codes
from objectives.packing.int4 import Int4Linear, block_rows, check_shape, from_pairs, pack, unpack_codes
from objectives.packing.int8 import Int8Linear, Int8WeightLinear
from objectives.packing.int8_rounding import round_in_pairs, round_symmetric
from objectives.packing.linear import PackedLinear
from objectives.packing.weighing import stored_bytes


@dataclass(frozen=True)
class Made:
    """A packed linear, the fp64 weight that it stands for, and what it does to its inputs first."""

    linear: PackedLinear
    weight: Tensor
    bias: Tensor | None
    rounds: bool = False

    def naive(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).double()
        if self.rounds:
            scale = rows.abs().amax(dim=1, keepdim=True) / 127
            rows = torch.where(scale > 0, (rows / scale).round() * scale, 0.0)
        y = rows @ self.weight.t()
        return (y if self.bias is None else y + self.bias.double()).view(*x.shape[:-1], -1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_bf16(out: int, width: int, bias: bool = False) -> Made:
    source = nn.Linear(width, out, bias=bias).requires_grad_(False)
    source.weight.copy_(random(out, width))
    packed = Bf16Linear.from_linear(source)
    return Made(packed, source.weight.bfloat16().double(), source.bias)


def make_int8(out: int, width: int, bias: bool = False) -> Made:
    weight, shift = random(out, width), random(out, seed=1) if bias else None
    packed = Int8Linear.from_weight(weight, shift)
    return Made(packed, packed.codes.double() * packed.scale.double()[:, None], shift, rounds=True)


def make_int8_settled(out: int, width: int, bias: bool = False) -> Made:
    made = make_int8(out, width, bias)
    return replace(made, linear=made.linear.repack_())


def make_int8_weight_only(out: int, width: int, bias: bool = False) -> Made:
    weight, shift = random(out, width), random(out, seed=1) if bias else None
    scale = weight.double().abs().amax(dim=1, keepdim=True) / 127
    return Made(Int8WeightLinear.from_weight(weight, shift), (weight / scale).round() * scale, shift)


def make_int4(out: int, width: int, bias: bool = False, group: int = 32) -> Made:
    values = torch.randint(0, 16, (out, width), generator=torch.Generator().manual_seed(2))
    scale = (0.1 + random(out, width // group).abs()).bfloat16().float()
    zero = random(out, width // group, seed=3).bfloat16().float()
    shift = random(out, seed=1) if bias else None
    spread = [part.double().repeat_interleave(group, dim=1) for part in (scale, zero)]
    return Made(Int4Linear.from_codes(values, scale, zero, shift), (values - 8) * spread[0] + spread[1], shift)


MAKERS = {
    "bf16": make_bf16,
    "int8": make_int8,
    "int8_settled": make_int8_settled,
    "int8_weight_only": make_int8_weight_only,
    "int4": make_int4,
}
Maker = Callable[..., Made]


@pytest.fixture(params=sorted(MAKERS))
def make(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[request.param]


@pytest.fixture(params=[False, True], ids=["without_native", "with_native"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A CPU without, and one with, native bf16 and int8 matrix instructions."""
    for module in (bf16, int8, linear):
        monkeypatch.setattr(module, "cpu_kernels", lambda: CpuKernels(bf16=request.param, int8=request.param))
    return bool(request.param)


def error(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted).norm() / wanted.norm()).item()


def row_counts(packed: PackedLinear) -> list[int]:
    """Below, at and above the count where the kernel hands over."""
    turn = 0 if isinstance(packed, Int8Linear) or packed.kernel_rows >= 1000 else packed.kernel_rows
    return sorted({1, max(1, turn - 1), max(1, turn), turn + 1, turn + 40})


@pytest.mark.parametrize(("out", "width"), [(64, 64), (96, 128), (512, 576)])
@pytest.mark.parametrize("bias", [False, True])
def test_forward_is_the_naive_product_at_every_row_count(
    make: Maker, kernels: bool, out: int, width: int, bias: bool
) -> None:
    made = make(out, width, bias)
    for rows in row_counts(made.linear):
        x = random(rows, width, seed=rows)
        y = made.linear(x)
        assert y.dtype == x.dtype
        assert y.shape == (rows, out)
        assert error(y, made.naive(x)) < 0.005, rows  # bf16 rows or products: 2^-9 each


def test_many_rows_are_multiplied_in_full_precision(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bf16, "cpu_kernels", lambda: CpuKernels(bf16=False, int8=False))
    made = make(64, 128, True)
    x = random(made.linear.kernel_rows + 1 if make is make_int4 else 200, 128)
    assert error(made.linear(x), made.naive(x)) < 1e-6


@pytest.mark.parametrize("make", [make_bf16, make_int8_weight_only, make_int4])
def test_both_paths_agree(make: Maker) -> None:
    packed = make(96, 128).linear
    rows = random(5, 128)
    assert error(packed.kernel(rows), packed.unpacked(rows).double()) < 0.005


def test_activations_of_16_bits_come_back_in_16_bits(make: Maker, kernels: bool) -> None:
    made = make(64, 128, True)
    for rows in (1, 200):
        x = random(rows, 128).bfloat16()
        assert made.linear(x).dtype == torch.bfloat16
        assert error(made.linear(x), made.naive(x)) < 0.01


def test_leading_dimensions_are_kept(make: Maker, kernels: bool) -> None:
    made = make(64, 32, True)
    x = random(2, 3, 5, 32)
    assert made.linear(x).shape == (2, 3, 5, 64)
    assert error(made.linear(x), made.naive(x)) < 0.005
    strided = random(3, 32, 2).transpose(1, 2)
    assert error(made.linear(strided), made.naive(strided)) < 0.005


def test_a_row_of_zeros_gives_the_bias(make: Maker, kernels: bool) -> None:
    made = make(32, 32, True)
    assert made.bias is not None
    torch.testing.assert_close(made.linear(torch.zeros(2, 32)), made.bias.float().expand(2, -1), rtol=0.01, atol=0.01)


def test_the_fastest_kernel_at_hand_is_taken(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for name in ("_int_mm", "ops.aten._weight_int8pack_mm"):
        owner = torch.ops.aten if name.startswith("ops") else torch
        name = name.rpartition(".")[2]
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, real=real, name=name: taken.append(name) or real(*args))
    made = make_int8(32, 32)
    made.linear(random(1, 32))
    made.linear(random(9, 32))
    assert taken == (["_int_mm", "_int_mm"] if kernels else ["_weight_int8pack_mm"])
    taken.clear()
    settled = make_int8(512, 576).linear.repack_()
    settled(random(1, 576))
    settled(random(9, 576))
    if kernels:
        assert taken == ["_int_mm", "_int_mm"]
    else:
        assert taken == ["_weight_int8pack_mm"]  # for the last 64 inputs, which fbgemm would pad to 512
        assert settled._fbgemm is not None
    assert make_bf16(32, 32).linear.kernel_rows == (sys.maxsize if kernels else 2)


@pytest.mark.parametrize("rows", [1, 8, 9, 40])
@pytest.mark.parametrize(("out", "width"), [(64, 33), (17, 100), (5, 7), (48, 48)])
def test_int8_takes_any_shape(kernels: bool, rows: int, out: int, width: int) -> None:
    x = random(rows, width)
    for make in (make_int8, make_int8_settled, make_int8_weight_only):
        made = make(out, width, True)
        assert error(made.linear(x), made.naive(x)) < 0.005
    assert made.linear.kernel_rows == 0  # aten's kernel would read past the end of a row


@given(st.integers(1, 4), st.integers(1, 9), st.floats(1e-4, 1e4), st.integers(0, 99))
def test_int8_rounding_is_off_by_half_a_step_at_most(rows: int, width: int, spread: float, seed: int) -> None:
    values = random(rows, width, seed=seed) * spread
    values[0] = 0
    codes, scale = round_symmetric(values)
    assert scale.shape == (rows, 1)
    assert codes.abs().max() <= 127
    assert ((codes * scale - values).abs() <= scale * 0.5001).all()
    assert (codes[0] == 0).all()
    assert (codes[1:].abs().amax(dim=1) == 127).all()


@pytest.mark.parametrize("out", [16, 48, 80, 112, 144])
@pytest.mark.parametrize("rows", [1, 48, 49, 200])
def test_rows_that_fill_no_block_are_unpacked_too(out: int, rows: int) -> None:
    made = make_int4(out, 64, True)  # a block is 32 or 64 rows
    x = random(rows, 64)
    assert error(made.linear(x), made.naive(x)) < 0.005


def test_a_layout_we_do_not_know_is_left_to_the_int4_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int4, "block_rows", lambda: None)
    made = make_int4(64, 64)
    assert made.linear.kernel_rows == sys.maxsize
    x = random(200, 64)
    assert error(made.linear(x), made.naive(x)) < 0.005


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("out", [64, 112])
def test_the_codes_of_int4_can_be_read_back_for_any_other_cpu(
    out: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:
        monkeypatch.setattr(int4, "block_rows", lambda: None)
    codes = torch.randint(0, 16, (out, 128), generator=torch.Generator().manual_seed(5))
    made = Int4Linear.from_codes(codes, random(out, 2), random(out, 2, seed=1), None)
    assert torch.equal(from_pairs(made.codes).to(codes.dtype), codes)
    again = Int4Linear(made.codes, made.scale_zero, None).repack_()
    assert torch.equal(again.packed, made.packed)
    assert torch.equal(again.repack_().packed, made.packed)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in {"AVX2", "AVX512"}, reason="another CPU type")
def test_the_layout_of_this_build_is_known() -> None:
    assert block_rows() in {32, 64}


@pytest.mark.parametrize(("out", "width"), [(64, 32), (128, 96), (192, 256), (16, 32), (240, 64)])
@pytest.mark.parametrize("fill", [None, 0, 15])
def test_packing_keeps_every_code_in_half_a_byte(out: int, width: int, fill: int | None) -> None:
    block = block_rows()
    if block is None:
        pytest.skip("the layout of this build is not known")
    codes = torch.randint(0, 16, (out, width), generator=torch.Generator().manual_seed(4))
    if fill is not None:
        codes[:] = fill
    packed = pack(codes)
    assert packed.dtype == torch.uint8
    assert packed.numel() == codes.numel() // 2
    assert torch.equal(unpack_codes(packed, block).to(codes.dtype), codes.t())


@pytest.mark.parametrize("group", [32, 64, 128, 256])
def test_every_group_size_of_int4_has_a_kernel(group: int) -> None:
    made = make_int4(64, 512, group=group)
    for rows in (1, 200):
        assert error(made.linear(random(rows, 512)), made.naive(random(rows, 512))) < 0.005


@pytest.mark.parametrize(
    ("out", "width", "group", "words"),
    [
        (64, 64, 16, r"group size must be one of \(32, 64, 128, 256\), got 16"),
        (64, 96, 64, r"in_features % 64 == 0 and out_features % 16 == 0, got 96 -> 64"),
        (24, 64, 64, r"in_features % 64 == 0 and out_features % 16 == 0, got 64 -> 24"),
    ],
)
def test_a_shape_that_the_int4_kernel_cannot_read_is_refused(out: int, width: int, group: int, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        check_shape(out, width, group)
    check_shape(16, 64, 64)


def test_from_codes_refuses_such_a_shape_too() -> None:
    with pytest.raises(Unsupported, match="out_features"):
        make_int4(24, 64)


@pytest.mark.parametrize("out", [128, 144])
def test_unpacking_in_slices_changes_nothing(make: Maker, out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x, seen = make(out, 32, True), random(200, 32), []
    part = type(made.linear)._slice
    whole = made.linear.unpacked(x)

    def watched(self: PackedLinear, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        seen.append((start, stop))
        return part(self, start, stop, dtype)

    monkeypatch.setattr(type(made.linear), "_slice", watched)
    monkeypatch.setattr(linear, "SLICE_ELEMENTS", 1)
    assert error(made.linear.unpacked(x), whole.double()) < 1e-6
    assert seen == [(0, 64), (64, 128), (128, 144)][: -(-out // 64)]
    assert made.linear.unpacked(x.clone().requires_grad_()).requires_grad


def test_rows_in_bf16_are_multiplied_in_fp32_where_bf16_is_slow(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(self: Bf16Linear, rows: Tensor) -> Tensor:
        seen.append(rows.dtype)
        return rows @ self.weight.to(rows.dtype).t()

    for name in ("kernel", "unpacked"):
        monkeypatch.setattr(Bf16Linear, name, watched)
    assert make_bf16(64, 64).linear(random(9, 64).bfloat16()).dtype == torch.bfloat16
    assert seen == [torch.bfloat16 if kernels else torch.float32]


@pytest.mark.parametrize(("start", "stop"), [(0, 64), (5, 23), (60, 64)])
def test_a_slice_of_the_weight_is_the_weight_it_stands_for(make: Maker, start: int, stop: int) -> None:
    made = make(64, 64)
    found = made.linear.unpack(start, stop, torch.float32).double()
    torch.testing.assert_close(found, made.weight[start:stop], rtol=1e-5, atol=1e-5)


def test_bytes_are_those_of_the_packed_weight() -> None:
    for bias in (False, True):
        half = make_bf16(256, 512, bias).linear
        full = 256 * 512 * 2 + bias * 256 * 4
        assert stored_bytes([half]) == full
        assert stored_bytes([make_int8(256, 512, bias).linear]) <= 0.51 * full
        assert stored_bytes([make_int4(256, 512, bias, group=64).linear]) <= 0.30 * full
        assert stored_bytes([make_int4(256, 512, bias, group=32).linear]) <= 0.33 * full


def test_a_settled_int8_weight_is_weighed_though_no_tensor_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "cpu_kernels", lambda: CpuKernels(bf16=False, int8=False))
    for out, width, held in ((512, 512, 512), (512, 576, 512), (512, 1000, 1000), (1024, 384, 0), (64, 576, 0)):
        packed, settled = make_int8(out, width).linear, make_int8_settled(out, width).linear
        assert 0 <= stored_bytes([settled]) - stored_bytes([packed]) <= 12 * out + 0.1 * out * width
        assert held * out <= settled.hidden_bytes <= (held * 1.1 + 12) * out


def test_settling_keeps_the_integers_the_copy_and_what_is_saved() -> None:
    packed, settled = make_int8(512, 576, True).linear, make_int8_settled(512, 576, True).linear
    for other in (settled, copy.deepcopy(settled), settled.repack_()):
        assert torch.equal(other.codes, packed.codes)
        assert torch.equal(other.scale, packed.scale)
        assert torch.equal(other(random(3, 576)), settled(random(3, 576)))
        assert other.state_dict().keys() == packed.state_dict().keys() == {"codes", "scale", "bias"}


@pytest.mark.parametrize("width", [512, 576, 1000, 33])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_no_sum_of_two_products_saturates(width: int, rows: int) -> None:
    """Weights and activations as large as they come; fp32 holds these sums exactly."""
    weight = random(600, width).sign() * torch.rand(600, width).add(3).floor()  # pairs of one sign everywhere
    codes, scale = round_in_pairs(weight.abs())
    packed = Int8Linear(codes.to(torch.int8), scale.squeeze(1), None).repack_()
    x = torch.full((rows, width), 127.0)
    x[::2] *= -1
    torch.testing.assert_close(packed(x), x @ (codes * scale).t(), rtol=1e-6, atol=0)


def test_neighbours_of_one_sign_add_up_to_128_at_most() -> None:
    weight = random(200, 301)
    codes, scale = round_in_pairs(weight)
    pairs = nn.functional.pad(codes, (0, 1)).view(200, -1, 2)
    assert pairs.clamp_min(0).sum(dim=2).max() <= 128
    assert pairs.clamp_max(0).sum(dim=2).min() >= -128
    assert ((codes * scale - weight).abs() <= scale * 0.5001).all()
    zero, one = round_in_pairs(torch.zeros(2, 5))
    assert zero.eq(0).all()
    assert one.gt(0).all()


def test_a_bf16_weight_is_shared_and_not_copied() -> None:
    source = nn.Linear(8, 4, dtype=torch.bfloat16)
    assert Bf16Linear.from_linear(source).weight is source.weight


def test_codes_stand_for_what_the_packed_linear_computes() -> None:
    made = make_int4(32, 64, group=32)
    values = torch.randint(0, 16, (32, 64), generator=torch.Generator().manual_seed(2))
    scale, zero = made.linear.scale_zero.float().unbind(dim=2)
    torch.testing.assert_close(
        Codes(values, scale.t(), zero.t(), 4).dequantize().double(), made.weight, rtol=1e-5, atol=1e-5
    )


def test_a_packed_linear_shows_its_shapes(make: Maker) -> None:
    assert "in_features=32, out_features=64, bias=True" in repr(make(64, 32, True).linear)


def test_the_compute_dtype_follows_the_bf16_kernels() -> None:
    assert CpuKernels(bf16=True, int8=False).compute_dtype == torch.bfloat16
    assert CpuKernels(bf16=False, int8=True).compute_dtype == torch.float32
    assert cpu_kernels() is cpu_kernels()


def test_one_input_is_multiplied_right(kernels: bool) -> None:
    for make in (make_int8, make_int8_settled, make_int8_weight_only):
        made, x = make(32, 1), random(40, 1)
        assert error(made.linear(x), made.naive(x)) < 0.005


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_linear_in_16_bits_is_traced_as_one_graph(dtype: torch.dtype, rows: int) -> None:
    packed = Bf16Linear.from_linear(nn.Linear(8, 8, dtype=torch.bfloat16))
    torch.compiler.reset()
    compiled = torch.compile(packed, backend="eager", fullgraph=True, dynamic=True)
    given = torch.ones(rows, 8, dtype=dtype)
    with torch.inference_mode():
        assert torch.equal(compiled(given), packed(given))
