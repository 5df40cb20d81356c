"""Weighing: every byte that is stored counts, once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from objectives.metrics import METRICS
from objectives.packing.weighing import block_weights, stored_bytes, weigh
from tests.objectives.conftest import Tiny


def test_shared_tensors_and_views_are_weighed_once_and_buffers_too() -> None:
    model = nn.Module()
    model.a = nn.Linear(4, 8, bias=False)
    model.b = nn.Linear(4, 8, bias=True)
    model.b.weight = model.a.weight
    model.register_buffer("codes", torch.zeros(5, dtype=torch.int8))
    model.register_buffer("view", model.codes[:2])
    model.register_buffer("hidden", torch.zeros(3, dtype=torch.bfloat16), persistent=False)
    assert stored_bytes([model]) == 4 * 32 + 4 * 8 + 5 + 6
    assert stored_bytes([model.a, model.b]) == 4 * 32 + 4 * 8
    assert stored_bytes([]) == 0


class Imitation(Tensor):
    """Says it is fp32, holds int8: as torchao's weights do."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Imitation:
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=torch.float32)  # type: ignore[attr-defined]

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Imitation(args[0].inner) if func is torch.ops.aten.detach.default else NotImplemented


def test_a_tensor_that_imitates_another_dtype_is_weighed_by_what_it_holds() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight = nn.Parameter(Imitation(torch.zeros(10, 3, dtype=torch.int8)), requires_grad=False)
    assert stored_bytes([model]) == 30


def test_what_a_kernel_keeps_outside_of_tensors_is_weighed_by_what_its_linear_says() -> None:
    model = nn.Sequential(nn.Linear(4, 8, bias=False))
    model[0].hidden_bytes = 1000
    assert stored_bytes([model]) == 4 * 32 + 1000
    assert stored_bytes([model, model[0]]) == 4 * 32 + 1000


def test_a_dense_model_weighs_what_its_config_says(tiny: Tiny) -> None:
    model = tiny("qwen2")
    per_block = 64 * (64 + 32 + 32 + 64 + 3 * 192)
    assert block_weights(model) == 2 * per_block
    metrics = weigh(model, block_weights(model))
    assert metrics["effective_bits"] == 16
    assert metrics["pruning_ratio"] == 0
    norms, biases = 2 * 64, 64 + 32 + 32
    assert metrics["block_bytes"] == 2 * 2 * (per_block + norms + biases)
    rotary = stored_bytes([model.module.model.rotary_emb])
    assert metrics["weight_bytes"] == metrics["block_bytes"] + 2 * (128 * 64 + 64) + rotary
    assert metrics.keys() <= METRICS.keys()
