"""Models are brought to one form without a change of what they compute."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from objectives.models import LoadedModel
from objectives.models.canonical import canonicalize_
from objectives.pruning.surgery import keep_sets_, kept_rows
from tests.objectives.conftest import Tiny


def gpt2() -> LoadedModel:
    """In fp32, as transformers builds it: three heads of 8 channels."""
    config = GPT2Config(vocab_size=50, n_embd=24, n_head=3, n_layer=2, n_positions=16, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    module = GPT2LMHeadModel(config).eval().requires_grad_(False)
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.normal_()
    return LoadedModel(module, None, "causal_lm")


def test_conv1d_becomes_a_linear_that_gives_the_same() -> None:
    source = gpt2()
    model = canonicalize_(LoadedModel(copy.deepcopy(source.module), None, "causal_lm"))
    assert not [module for module in model.module.modules() if isinstance(module, Conv1D)]
    for block, before in zip(model.blocks(), source.module.transformer.h, strict=True):
        for path in block.stack.block_linears:
            linear, conv = block.linear(path), before.get_submodule(path)
            assert isinstance(linear, nn.Linear)
            assert torch.equal(linear.weight, conv.weight.t())
            assert torch.equal(linear.bias, conv.bias)
            assert linear.weight.is_contiguous()
            assert not linear.training
    ids = torch.arange(20).view(2, 10)
    torch.testing.assert_close(model.module(ids).logits, source.module(ids).logits, rtol=1e-5, atol=1e-5)


def test_what_is_in_form_stays_as_it_is(tiny: Tiny) -> None:
    model = tiny("gpt2").copy()
    modules = list(model.module.modules())
    canonicalize_(model)
    assert all(one is other for one, other in zip(modules, model.module.modules(), strict=True))


def test_a_fused_linear_keeps_the_rows_of_all_its_parts() -> None:
    """Query, key and value follow each other: 24 rows each, heads of 8."""
    block = next(canonicalize_(gpt2()).blocks())
    attention, ffn = block.units
    assert attention.producers == (("attn.c_attn", 8),) * 3
    assert (attention.count, attention.width, attention.parameters) == (3, 8, (3 * 8 + 8) * 24)
    assert (ffn.producers, ffn.count) == ((("mlp.c_fc", 1),), 96)
    heads = torch.tensor([0, 2])
    rows = [start + row for start in (0, 24, 48) for row in (*range(8), *range(16, 24))]
    assert kept_rows(attention, heads)["attn.c_attn"].tolist() == rows
    weight, bias = block.linear("attn.c_attn").weight[rows], block.linear("attn.c_attn").bias[rows]
    keep_sets_(block, attention, heads)
    assert torch.equal(block.linear("attn.c_attn").weight, weight)
    assert torch.equal(block.linear("attn.c_attn").bias, bias)
    attn = block.module.get_submodule("attn")
    assert (attn.num_heads, attn.embed_dim, attn.split_size) == (2, 16, 16)
