"""What every quantiser of ``conf/quantization`` promises, at every bit width, on every family."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from objectives.calibration.moments import Moment
from objectives.calibration.statistics import Statistics, moment_of
from objectives.devices.cpu import Cpu
from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.models.layers import layers_of
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.capability import cpu_kernels
from objectives.packing.codes import Codes
from objectives.packing.int4 import Int4Linear
from objectives.packing.int8 import Int8Linear
from objectives.packing.linear import PackedLinear
from objectives.packing.weighing import block_weights, stored_bytes, weigh
from objectives.pruning.structured import Structured
from objectives.quantization.gptq import Gptq
from objectives.quantization.grid import min_max_grid, round_to_grid
from objectives.quantization.layers import recollected
from objectives.quantization.mixed import Mixed
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.quantization.sensitivity import rounded_loss
from objectives.types import NoteCode
from tests.objectives.conftest import Tiny
from tests.objectives.families import CORE, TRIED, answer, each_core_family, pairs
from tests.objectives.recipes import built, choices
from tests.pairwise import pairwise

PACKED = {16: Bf16Linear, 8: Int8Linear, 4: Int4Linear}
Quantize = Callable[..., LoadedModel]
each_quantizer = pytest.mark.parametrize("choice", choices("quantization"))
PAIRS, BITS = pairs("quantization"), (16, 8, 4)
DECODE, PREFILL = (1, 1), (4, 32)
"""Rows and tokens of what is asked."""
each_case = pairwise("choice family", PAIRS, bits=BITS)
UNIFORM = [name for name in choices("quantization") if name != "mixed"]
each_uniform = pytest.mark.parametrize("choice", UNIFORM)
each_width = pytest.mark.parametrize("bits", BITS)


@pytest.fixture(scope="module")
def quantize_anew(tiny: Tiny, statistics: Callable[[str], Statistics]) -> Quantize:
    def quantized(family: str, choice: str, **changes: object) -> LoadedModel:
        model = tiny(family).copy()
        built("quantization", choice, **changes).quantize_(model, statistics(family), Cpu())
        return model

    return quantized


@pytest.fixture(scope="module")
def quantize(quantize_anew: Quantize) -> Quantize:
    """Quantise a model once for all tests. Shared: never changed."""
    return cache(quantize_anew)


def linears(model: LoadedModel) -> list[PackedLinear]:
    paths = [(block, path) for block in model.blocks() for path in block.stack.block_linears]
    return [cast("PackedLinear", block.linear(path)) for block, path in paths]


def outputs(model: LoadedModel, rows: int, tokens: int) -> Tensor:
    ids = torch.randint(2, 128, (rows, tokens), generator=torch.Generator().manual_seed(3))
    return answer(model, ids)


def error(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


@pairwise("choice family", PAIRS, bits=BITS, shape=[DECODE, PREFILL])
def test_the_output_is_close_to_that_of_the_unpacked_model(
    tiny: Tiny, quantize: Quantize, choice: str, family: str, bits: int, shape: tuple[int, int]
) -> None:
    unpacked = tiny(family).copy()
    unpacked.module.float()
    off = error(outputs(quantize(family, choice, bits=bits), *shape), outputs(unpacked, *shape))
    assert off < {16: 0.02, 8: 0.035, 4: 0.3}[bits]  # activations are in bf16 where the CPU multiplies that fast
    assert off > {16: -1.0, 8: 0.002, 4: 0.02}[bits]  # else nothing was rounded


@each_case
def test_every_block_linear_is_packed_in_the_bits_asked(
    quantize: Quantize, choice: str, family: str, bits: int
) -> None:
    model = quantize(family, choice, bits=bits)
    assert {type(linear) for linear in linears(model)} == {PACKED[bits]}
    assert model.notes == []


def scaled_inputs(model: LoadedModel) -> int:
    """Bytes of the factors of the inputs."""
    return sum(linear.inputs.nbytes for linear in linears(model) if getattr(linear, "inputs", None) is not None)


@each_uniform
@each_core_family
def test_effective_bits_count_scales_and_zeros(tiny: Tiny, quantize: Quantize, choice: str, family: str) -> None:
    dense = block_weights(tiny(family))

    def effective(**changes: object) -> float:
        """Without what AWQ adds: 16 bits per input."""
        model = quantize(family, choice, **changes)
        metrics = weigh(model, dense)
        assert metrics["pruning_ratio"] == 0
        return metrics["effective_bits"] - 8 * scaled_inputs(model) / dense

    channels = sum(linear.out_features for linear in linears(tiny(family)))
    assert effective(bits=16) == 16
    assert effective(bits=8) == pytest.approx(8 + 32 * channels / dense)
    assert effective(bits=4, group_size=64) == pytest.approx(4.5)
    assert effective(bits=4, group_size=32) == pytest.approx(5.0)


@each_case
def test_all_but_the_blocks_stays_in_16_bits(quantize: Quantize, choice: str, family: str, bits: int) -> None:
    module = quantize(family, choice, bits=bits).module
    embedding = module.get_input_embeddings()
    assert embedding.weight.dtype == torch.bfloat16
    assert embedding(torch.tensor([1])).dtype == cpu_kernels().compute_dtype
    head = module.get_output_embeddings()
    if head is not None:
        assert isinstance(head, Bf16Linear)
        assert head.weight.dtype == torch.bfloat16
        assert (head.weight is embedding.weight) == module.config.tie_word_embeddings
    norms = [child for child in module.modules() if type(child).__name__.endswith("Norm")]
    assert norms
    assert {norm.weight.dtype for norm in norms} == {cpu_kernels().compute_dtype}


@each_quantizer
@each_core_family
def test_fewer_bits_take_fewer_bytes(tiny: Tiny, quantize: Quantize, choice: str, family: str) -> None:
    weights = block_weights(tiny(family))
    models = {bits: quantize(family, choice, bits=bits) for bits in (16, 8, 4)}
    size = {bits: stored_bytes(linears(model)) - scaled_inputs(model) for bits, model in models.items()}
    biases = size[16] - 2 * weights
    assert size[8] - biases < 0.54 * 2 * weights  # narrow layers: a scale per 64 to 192 weights
    assert size[4] - biases == 4.5 / 8 * weights


@pairwise("", choice=choices("quantization"), family=CORE, bits=BITS)
def test_the_same_settings_give_the_same_model(
    quantize: Quantize, quantize_anew: Quantize, choice: str, family: str, bits: int
) -> None:
    one, other = (each(family, choice, bits=bits) for each in (quantize, quantize_anew))
    left, right = one.module.state_dict(), other.module.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


@each_uniform
def test_a_layer_that_fits_no_group_stays_in_16_bits_and_is_noted(
    tiny: Tiny, statistics: Callable[[str], Statistics], choice: str
) -> None:
    model = tiny("bert").copy()
    Structured(ratio=0.22, multiple_of=16).prune_(model, statistics("bert"))
    built("quantization", choice, bits=4).quantize_(model, statistics("bert"), Cpu())
    odd = [linear.in_features for linear in linears(model) if linear.in_features % 32]
    kept = [linear.in_features for linear in linears(model) if isinstance(linear, Bf16Linear)]
    assert odd
    assert kept == odd
    notes = [note.text for note in model.notes if note.code is NoteCode.KEPT_IN_16_BITS]
    assert len(notes) == len(odd)
    assert notes[0].startswith("encoder.layer.")
    assert notes[0].endswith(f": {odd[0]} inputs x 64 outputs fit no 4-bit kernel, kept in 16 bits")


@each_uniform
def test_a_smaller_group_than_asked_is_noted(quantize: Quantize, choice: str) -> None:
    model = quantize("llama", choice, bits=4, group_size=128)  # the model is 64 wide, its FFN 128
    assert all(linear.group_size == linear.in_features for linear in cast("list[Int4Linear]", linears(model)))
    assert len(model.notes) == sum(linear.in_features == 64 for linear in linears(model))
    assert str(model.notes[0]) == "layers.0.self_attn.q_proj: 64 inputs fit no group of 128, groups of 64 instead"


@each_quantizer
@each_width
def test_bits_that_the_device_does_not_store_are_refused(
    tiny: Tiny, statistics: Callable[[str], Statistics], choice: str, bits: int
) -> None:
    @dataclass(frozen=True)
    class Poor(Cpu):
        name: str = "toy"

        @property
        def bits(self) -> frozenset[int]:
            return frozenset({16, 8, 4}) - {bits}

    allowed = sorted({16, 8, 4} - {bits})
    with pytest.raises(Unsupported, match=rf"{bits} bits on toy: choose from \[{allowed[0]}, {allowed[1]}\]"):
        built("quantization", choice, bits=bits).quantize_(tiny("llama").copy(), statistics("llama"), Poor())


def test_pruned_inputs_are_weighed_by_their_own_moments(tiny: Tiny, statistics: Callable[[str], Statistics]) -> None:
    """A consumer that lost channels must be rounded for those it kept, not for the first ones."""
    model = tiny("llama").copy()
    Structured(ratio=0.5).prune_(model, statistics("llama"))
    moments = statistics("llama").moments
    own = Statistics(model, {})
    own.moments = {**moments, **{key: moments[key].select(kept) for key, kept in model.kept_inputs.items()}}
    fp32_copy = model.copy()
    RoundToNearest(bits=4, group_size=32).quantize_(model, statistics("llama"), Cpu())
    RoundToNearest(bits=4, group_size=32).quantize_(fp32_copy, own, Cpu())
    left, right = model.module.state_dict(), fp32_copy.module.state_dict()
    assert model.kept_inputs
    assert all(torch.equal(left[name], right[name]) for name in left)


@each_core_family
def test_the_searched_grid_spares_the_inputs_that_calibration_saw_most(
    tiny: Tiny, statistics: Callable[[str], Statistics], family: str
) -> None:
    """The error weighted by E[x^2] is that of the layer's output: moments must lower it, group by group."""
    informed, blind = tiny(family).copy(), tiny(family).copy()
    RoundToNearest(bits=4, group_size=32).quantize_(informed, statistics(family), Cpu())
    RoundToNearest(bits=4, group_size=32).quantize_(blind, Statistics(blind, {}), Cpu())
    lower = 0.0
    for block in tiny(family).blocks():
        for path in block.stack.block_linears:
            weight = block.linear(path).weight.float()
            importance = statistics(family).moments[block.name, path].second.diagonal()
            found = []
            for model in (informed, blind):
                packed = cast("Int4Linear", dict(model.module.base_model.named_modules())[f"{block.name}.{path}"])
                restored = packed.unpack(0, packed.out_features, torch.float32)
                found.append(((restored - weight).square() * importance).view(len(weight), -1, 32).sum(dim=2))
            assert (found[0] <= found[1] * 1.001 + 1e-7).all()
            lower += (found[1] - found[0]).sum().item()
    assert lower > 1e-3


def weighted_error(weight: Tensor, codes: Codes, importance: Tensor) -> Tensor:
    """Per group [out, groups]."""
    error = (codes.dequantize() - weight).square() * importance
    return error.view(*codes.scale.shape, -1).sum(dim=2)


outliers = st.sampled_from([1.0, 30.0])


@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([4, 8]), outliers, st.booleans())
def test_the_searched_grid_is_never_worse_than_the_full_range(
    seed: int, out: int, bits: int, outlier: float, dead: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, 64, generator=generator)
    weight[0, 5] *= outlier
    importance = torch.rand(64, generator=generator) ** 3
    if dead:
        importance[:40] = 0
    searched = round_to_grid(weight, importance, bits, 32, (1.0, 0.9, 0.8, 0.7))
    full = round_to_grid(weight, importance, bits, 32, (1.0,))
    best, reference = (weighted_error(weight, codes, importance) for codes in (searched, full))
    assert (best <= reference * (1 + 1e-5) + 1e-12).all()


def test_outliers_make_the_searched_grid_clearly_better() -> None:
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    weight[:, 7] = 9.0
    importance = torch.ones(64)
    importance[7] = 1e-3
    searched = weighted_error(weight, round_to_grid(weight, importance, 4, 64, (1.0, 0.8, 0.6)), importance)
    full = weighted_error(weight, round_to_grid(weight, importance, 4, 64, (1.0,)), importance)
    assert searched.sum() < 0.75 * full.sum()  # measured 0.70


@given(st.integers(0, 10**6), st.sampled_from([4, 8]), st.integers(-6, 3), st.integers(-20, 20))
def test_weights_that_lie_on_a_grid_are_kept_exactly(seed: int, bits: int, exponent: int, shift: int) -> None:
    values = torch.randint(0, 2**bits, (3, 64), generator=torch.Generator().manual_seed(seed))
    values[:, ::32], values[:, 1::32] = 0, 2**bits - 1  # each group of 32 uses the whole range
    step = torch.full((3, 2), 2.0**exponent)
    weight = Codes(values.int(), step, step * shift, bits).dequantize()
    codes = round_to_grid(weight, torch.ones(64), bits, 32, (1.0, 0.9, 0.8))
    assert torch.equal(codes.values, values.int())
    assert torch.equal(codes.dequantize(), weight)


@given(st.integers(0, 10**6), st.sampled_from([4, 8]), st.floats(1e-3, 1e3))
def test_every_weight_inside_the_range_is_off_by_half_a_step_at_most(seed: int, bits: int, spread: float) -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(seed)) * spread
    codes = round_to_grid(weight, torch.ones(64), bits, 32, (1.0,))
    assert codes.values.min() >= 0
    assert codes.values.max() <= 2**bits - 1
    step = codes.scale.repeat_interleave(32, dim=1)
    bound = {4: 0.56, 8: 1.6}[bits]  # 0.5, and the edges move as scale and zero are rounded to bf16
    assert ((codes.dequantize() - weight).abs() <= bound * step).all()


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_constant_group_is_restored(value: float) -> None:
    weight = torch.full((2, 32), value)
    codes = round_to_grid(weight, torch.ones(32), 4, 32, (1.0, 0.9))
    torch.testing.assert_close(codes.dequantize(), weight, rtol=1e-6, atol=1e-6)


def test_scales_and_zeros_are_those_that_will_be_stored() -> None:
    scale, zero = min_max_grid(torch.randn(4, 3, 32), 4)
    assert torch.equal(scale, scale.bfloat16().float())
    assert torch.equal(zero, zero.bfloat16().float())


def test_linears_and_norms_are_found_wherever_they_are(quantize: Quantize) -> None:
    """Nothing computes in plain bf16 on a CPU that has no kernel for it."""
    for family in TRIED:
        left = [m for m in quantize(family, "round_to_nearest", bits=8).module.modules() if type(m) is nn.Linear]
        assert left == []


def bits_of(model: LoadedModel) -> list[tuple[int, int]]:
    """(bits, weights) of every linear."""
    width = {packed: bits for bits, packed in PACKED.items()}
    return [(width[type(linear)], linear.in_features * linear.out_features) for linear in linears(model)]


@pytest.mark.parametrize("budget", [4.0, 5.0, 6.5, 12.0])
def test_mixed_precision_keeps_to_its_budget_of_average_bits(quantize: Quantize, budget: float) -> None:
    found = bits_of(quantize("llama", "mixed", bits=budget))
    average = sum(bits * weights for bits, weights in found) / sum(weights for _, weights in found)
    assert budget - 1.0 <= average <= budget
    assert budget == 4.0 or len({bits for bits, _ in found}) > 1


def test_linears_that_read_the_same_tensor_share_their_bits(quantize: Quantize) -> None:
    model = quantize("llama", "mixed", bits=5.5)
    for block in model.blocks():
        for paths in block.stack.shared_inputs:
            assert len({type(block.linear(path)) for path in paths}) == 1


def test_a_larger_budget_is_predicted_to_cost_less(quantize: Quantize) -> None:
    losses = [quantize("llama", "mixed", bits=bits).predicted_loss for bits in (4.0, 5.0, 8.0, 16.0)]
    assert losses[0] > losses[1] > losses[2] > losses[3] == 0


def test_the_assignment_is_the_best_of_all_within_the_budget(
    tiny: Tiny, statistics: Callable[[str], Statistics]
) -> None:
    """Twelve layers of two widths: every assignment can be tried."""
    model, mixed = tiny("llama"), built("quantization", "mixed", bits=6.0, widths=[8, 4])
    layers = list(layers_of(model))
    loss = {
        (layer.key, bits): rounded_loss(model, statistics("llama"), layer, bits, mixed.rounding, mixed.scheme)
        for layer in layers
        for bits in (8, 4)
    }
    total = sum(layer.parameters for layer in layers)
    best = min(
        sum(loss[layer.key, bits] for layer, bits in zip(layers, choice))
        for choice in itertools.product((8, 4), repeat=len(layers))
        if sum(bits * layer.parameters for layer, bits in zip(layers, choice)) <= 6.0 * total
    )
    copy = model.copy()
    mixed.quantize_(copy, statistics("llama"), Cpu())
    assert copy.predicted_loss <= best * (1 + 1e-6)  # it may also keep a layer in 16 bits


def test_a_budget_that_no_layer_can_meet_is_refused(tiny: Tiny, statistics: Callable[[str], Statistics]) -> None:
    with pytest.raises(Unsupported, match=r"an average of 3\.0 cannot be met with widths \(8, 4\)"):
        built("quantization", "mixed", bits=3.0).quantize_(tiny("llama").copy(), statistics("llama"), Cpu())


def test_awq_stores_channels_that_carry_much_finer() -> None:
    """The output error is below that of rounding to nearest, on the same grid, where activations differ in size."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 256, generator=generator)
    x = (
        torch.randn(2000, 256, generator=generator)
        * torch.logspace(-1.5, 1.5, 256)[torch.randperm(256, generator=generator)]
    )
    moment = Moment(x.mean(dim=0), x.t() @ x / len(x))
    errors = {}
    for choice in ("round_to_nearest", "awq"):
        codes = built("quantization", choice, bits=4, grid="min_max").round(weight, moment, 4, 64)
        errors[choice] = (x @ (codes.dequantize() - weight).t()).square().mean().item()
    assert errors["awq"] < 0.5 * errors["round_to_nearest"]
    assert codes.inputs is not None
    packed = Int4Linear.from_codes(codes.values, codes.scale, codes.zero, None, codes.inputs)
    for rows in (1, 200):
        wanted = x[:rows] @ codes.dequantize().t()
        assert ((packed(x[:rows]) - wanted).norm() / wanted.norm()).item() < 0.02  # bf16 rows


@pytest.mark.parametrize(("ratio", "depth_share"), [(0.3, 0.0), (0.5, 0.7)])
def test_moments_may_be_taken_again_from_the_pruned_model(
    tiny: Tiny, statistics: Callable[[str], Statistics], ratio: float, depth_share: float
) -> None:
    stats = statistics("llama")
    pruned = tiny("llama").copy()
    Structured(ratio=ratio, depth_share=depth_share).prune_(pruned, stats)
    again = recollected(pruned, stats, Cpu(), 10**6)
    for layer in layers_of(pruned):
        moment = moment_of(pruned, again, layer)
        assert len(moment.mean) == layer.linears[0].in_features
    assert again.gradients is stats.gradients
    codes = {}
    for tokens in (0, 64):
        model = replace(pruned, module=copy.deepcopy(pruned.module))
        built("quantization", "gptq", bits=4, recollect=tokens).quantize_(model, stats, Cpu())
        codes[tokens] = [block.linear("mlp.down_proj").packed for block in model.blocks()]
        assert math.isfinite(model.predicted_loss)
    assert not all(torch.equal(dense, own) for dense, own in zip(codes[0], codes[64], strict=True))


def test_awq_scales_nothing_where_all_channels_carry_the_same() -> None:
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    moment = Moment(torch.zeros(64), torch.eye(64))
    codes = built("quantization", "awq", bits=4).round(weight, moment, 4, 64)
    nearest = built("quantization", "round_to_nearest", bits=4).round(weight, moment, 4, 64)
    assert torch.equal(codes.dequantize(), nearest.dequantize())


@pytest.mark.parametrize("choice", ["round_to_nearest", "gptq"])
def test_widths_without_a_kernel_are_refused_or_marked(quantize: Quantize, choice: str) -> None:
    with pytest.raises(Unsupported, match="3 bits on cpu"):
        quantize("llama", choice, bits=3)
    model = quantize("llama", choice, bits=3, simulate=True)
    assert model.simulated
    assert {type(linear) for linear in linears(model)} == {Bf16Linear}
    groups = model.block("layers.0").linear("mlp.down_proj").dense.float().view(64, 2, 64)
    assert all(len(group.unique()) <= 8 for row in groups for group in row)


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_an_encoder_s_moments_may_be_taken_again_too(
    tiny: Tiny, statistics: Callable[[str], Statistics], family: str
) -> None:
    model = tiny(family).copy()
    Structured(ratio=0.4).prune_(model, statistics(family))
    built("quantization", "gptq", bits=4, recollect=64).quantize_(model, statistics(family), Cpu())
    assert math.isfinite(model.predicted_loss)


@pytest.mark.parametrize("budget", [4.6, 5.5, 7.0])
def test_a_budget_of_stored_bits_counts_scales(quantize: Quantize, budget: float) -> None:
    model = quantize("llama", "mixed", bits=budget, budget="stored")
    found = weigh(model, sum(block.parameters for block in model.blocks()))["effective_bits"]
    assert budget - 1.0 <= found <= budget


@pytest.mark.parametrize(("name", "value"), [("bits", 4), ("scheme", "weight_only"), ("recollect", 9)])
def test_mixed_refuses_settings_in_the_wrong_place(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"rounding\.{name}"):
        Mixed(rounding=Gptq(**{name: value}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="widths"):
        Mixed(widths=())


def test_without_calibration_rows_it_is_said_so(tiny: Tiny) -> None:
    with pytest.raises(Unsupported, match="at least one row"):
        _ = Statistics(tiny("llama"), {"none": []}).moments
