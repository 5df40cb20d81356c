"""A bf16 weight in oneDNN's blocks multiplies as in rows, to the bit, and comes back whole."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.models import LoadedModel
from objectives.packing import bf16
from objectives.packing.bf16 import Bf16Linear, in_rows
from objectives.packing.blocked import Blocked, blocked_bytes, fits, has_blocks
from objectives.packing.capability import CpuKernels, cpu_kernels
from objectives.packing.weighing import disk_bytes, stored_bytes, unique_tensors
from objectives.quantization.round_to_nearest import RoundToNearest
from tests.objectives.conftest import Tiny

needs_blocks = pytest.mark.skipif(
    not (cpu_kernels().bf16 and has_blocks()), reason="oneDNN has no bf16 products on this CPU"
)


def pair(out: int, width: int) -> tuple[Bf16Linear, Bf16Linear]:
    """Return a linear in rows, and the same one with its weight in blocks."""
    source = nn.Linear(width, out).requires_grad_(False)
    rows = Bf16Linear.from_linear(source)
    return rows, copy.deepcopy(rows).block_()


@needs_blocks
@pytest.mark.parametrize(("out", "width"), [(64, 64), (192, 576), (1504, 576)])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_the_product_is_the_same_to_the_bit(out: int, width: int, rows: int) -> None:
    plain, blocked = pair(out, width)
    assert blocked.weight is None
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)).to(dtype)
        assert torch.equal(plain(x), blocked(x))


@needs_blocks
def test_the_weight_comes_back_and_files_hold_it_as_ever() -> None:
    plain, blocked = pair(128, 64)
    assert torch.equal(blocked.dense, plain.dense)
    assert blocked.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(blocked.state_dict()["weight"], plain.weight)
    assert torch.equal(blocked.unpack(3, 9, torch.float32), plain.unpack(3, 9, torch.float32))
    again = copy.deepcopy(blocked)
    assert again.blocked is blocked.blocked
    assert torch.equal(again.unblock_().weight, plain.weight)
    assert again.hidden_bytes == 0
    assert blocked.weight is None


@needs_blocks
def test_blocks_are_weighed_though_no_tensor_holds_them() -> None:
    plain, blocked = pair(128, 64)
    assert stored_bytes([blocked]) == stored_bytes([plain])
    _, filled = pair(1504, 576)
    assert filled.hidden_bytes == blocked_bytes(1504, 576) >= 2 * 1504 * 576
    with FakeTensorMode():
        assert Blocked(torch.empty(1504, 576, dtype=torch.bfloat16)).nbytes == filled.hidden_bytes


@needs_blocks
def test_gradients_of_inputs_go_through_blocks() -> None:
    plain, blocked = pair(64, 64)
    grads = []
    for linear in (plain, blocked):
        x = torch.ones(3, 64).requires_grad_()
        linear(x).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


@needs_blocks
@pytest.mark.parametrize(("out", "width", "fit"), [(64, 64, True), (17, 64, False), (1504, 576, True)])
def test_a_weight_that_fills_no_blocks_stays_in_rows(out: int, width: int, fit: bool) -> None:
    assert fits(out, width) is fit
    assert fit or pair(out, width)[1].blocked is None


def test_without_native_bf16_weights_stay_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bf16, "cpu_kernels", lambda: CpuKernels(bf16=False, int8=False))
    assert pair(64, 64)[1].weight is not None


def stored(tiny: Tiny, family: str) -> LoadedModel:
    model = tiny(family).copy()
    RoundToNearest(predicts=False).quantize_(model, Statistics(model, {}), Cpu())
    return model


@needs_blocks
def test_block_linears_are_in_blocks_and_the_tied_head_is_not(tiny: Tiny) -> None:
    model = stored(tiny, "llama")
    blocks = {path for block in model.blocks() for path in block.stack.block_linears if block.linear(path).blocked}
    assert "mlp.gate_proj" in blocks
    assert ("self_attn.k_proj" in blocks) is fits(32, 64)
    assert model.module.lm_head.weight is model.module.get_input_embeddings().weight


@needs_blocks
def test_a_model_in_rows_shares_what_is_not_in_blocks_and_answers_the_same(tiny: Tiny) -> None:
    model = stored(tiny, "llama")
    plain = in_rows(model)
    assert in_rows(plain) is plain
    ids = torch.arange(24).view(2, 12)
    with torch.inference_mode():
        assert torch.equal(plain.module(ids).logits, model.module(ids).logits)
    assert plain.module.lm_head.weight is plain.module.get_input_embeddings().weight
    assert plain.module.lm_head.weight.data_ptr() == model.module.lm_head.weight.data_ptr()
    assert unique_tensors(plain.module).keys() == unique_tensors(model.module).keys()
    assert disk_bytes(plain) == disk_bytes(model)
    assert plain == replace(model, module=plain.module)
