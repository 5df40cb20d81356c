"""Encoder-decoders: two stacks, an attention that reads across, and T5, whose self-attention has to stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, BartForCausalLM, T5ForConditionalGeneration

from objectives.calibration.moments import collect_moments
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import Unsupported
from objectives.export.checkpoint import load, save
from objectives.models import LoadedModel
from objectives.models.canonical import canonicalize_
from objectives.packing.int4 import Int4Linear
from objectives.packing.weighing import block_weights, weigh
from objectives.pruning.structured import Structured
from objectives.pruning.surgery import channels_of, keep_sets_, set_inputs_
from objectives.quantization.round_to_nearest import RoundToNearest
from tests.conftest import SIZES
from tests.objectives.conftest import Tiny
from tests.objectives.families import SEQ2SEQ, answer

each_family = pytest.mark.parametrize("family", SEQ2SEQ)
Collected = Callable[[str], Statistics]


def ids_of(rows: int = 2, tokens: int = 9) -> Tensor:
    return torch.randint(2, 128, (rows, tokens), generator=torch.Generator().manual_seed(3))


def pruned(model: LoadedModel, statistics: Statistics, **settings: Any) -> LoadedModel:
    smaller = model.copy()
    Structured(**settings).prune_(smaller, statistics)
    return smaller


@each_family
@pytest.mark.parametrize("settings", [{"ratio": 0.25}, {"ratio": 0.5}, {"attention_ratio": 0.5}], ids=str)
def test_generation_from_the_cache_is_that_of_reading_everything_again(
    tiny: Tiny, statistics: Collected, family: str, settings: dict[str, float]
) -> None:
    module = pruned(tiny(family), statistics(family), **settings).module.float()
    generated = module.generate(
        ids_of(), attention_mask=torch.ones_like(ids_of()), max_new_tokens=5, min_new_tokens=5, do_sample=False
    )
    written = torch.full((2, 1), module.config.decoder_start_token_id)
    forbidden = torch.zeros(128)
    forbidden[module.config.eos_token_id] = float("-inf")  # min_new_tokens
    for _ in range(5):
        logits = module(input_ids=ids_of(), decoder_input_ids=written, use_cache=False).logits[:, -1] + forbidden
        written = torch.cat([written, logits.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(generated, written)


@each_family
def test_both_caches_hold_only_the_kept_heads(tiny: Tiny, statistics: Collected, family: str) -> None:
    model = pruned(tiny(family), statistics(family), ratio=0.5)
    cache = model.module(**model.inputs(ids_of(2, 7)), use_cache=True).past_key_values
    decoder = [block for block in model.blocks() if block.name.startswith("decoder.")]
    for index, block in enumerate(decoder):
        own, across = block.stack.attentions
        for attention, part in ((own, cache.self_attention_cache), (across, cache.cross_attention_cache)):
            heads = block.linear(attention.key).out_features // block.head_dim
            keys, values = part.layers[index].keys, part.layers[index].values
            assert keys.shape == values.shape == (2, heads, 7, block.head_dim)


@each_family
def test_cross_attention_is_a_unit_whose_keys_and_values_read_the_encoder(tiny: Tiny, family: str) -> None:
    model, ids = tiny(family), ids_of(3, 11)
    moments = collect_moments(model, {"one": [ids]})
    encoded = model.module.get_encoder()(input_ids=ids).last_hidden_state.flatten(0, 1).float()
    for block in model.blocks():
        if not block.name.startswith("decoder."):
            continue
        across = block.stack.attentions[1]
        assert across.cross
        assert across.out in {unit.consumer for unit in block.units}
        for path in (across.key, across.value):
            torch.testing.assert_close(moments[block.name, path].mean, encoded.mean(dim=0), rtol=1e-3, atol=1e-4)
        assert moments[block.name, across.query] is not moments[block.name, across.key]


@each_family
def test_the_decoder_is_given_what_the_encoder_read_one_step_later(tiny: Tiny, family: str) -> None:
    inputs = tiny(family).inputs(ids_of())
    assert torch.equal(inputs["input_ids"], ids_of())
    assert torch.equal(inputs["decoder_input_ids"][:, 1:], ids_of()[:, :-1])
    assert inputs["decoder_input_ids"][:, 0].tolist() == [0, 0]


@each_family
def test_a_packed_model_generates_after_loading(tiny: Tiny, statistics: Collected, tmp_path: Path, family: str) -> None:
    model = pruned(tiny(family), statistics(family), ratio=0.25)
    RoundToNearest(bits=4, group_size=32).quantize_(model, statistics(family), Cpu())
    save(model, tmp_path / "small")
    asked = {"attention_mask": torch.ones_like(ids_of()), "max_new_tokens": 4, "do_sample": False}
    written = load(tmp_path / "small").module.generate(ids_of(), **asked)
    assert torch.equal(written, model.module.generate(ids_of(), **asked))


def test_a_stack_that_is_not_there_is_named(tiny: Tiny) -> None:
    half = LoadedModel(BartForCausalLM(copy.deepcopy(tiny("bart").module.config)), None, "causal_lm")
    with pytest.raises(Unsupported, match=r"^model\.head: loaded like this, BartDecoderWrapper has no encoder\.layers"):
        list(half.blocks())


# ---- T5


def t5(**changes: Any) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = AutoConfig.for_model("t5", **{**SIZES["t5"], **changes})
    return T5ForConditionalGeneration(config).eval().requires_grad_(False)


def test_the_zero_bias_of_t5s_cross_attention_is_made_for_one_head() -> None:
    source, model = t5(), canonicalize_(LoadedModel(t5(), None, "seq2seq"))
    own, across = (model.module.decoder.block[1].layer[i] for i in range(2))
    assert (own.SelfAttention.n_heads, across.EncDecAttention.n_heads) == (8, 1)
    inputs = model.inputs(ids_of())
    assert torch.equal(model.module(**inputs).logits, source(**inputs).logits)


def test_blocks_of_t5_may_differ_in_the_heads_of_their_cross_attention(tiny: Tiny) -> None:
    model, dense = tiny("t5").copy(), tiny("t5").copy()
    block, kept = model.block("decoder.block.1"), torch.tensor([1, 4, 6])
    unit = block.units[0]
    reader, other = (each.block(block.name).linear(unit.consumer) for each in (model, dense))
    set_inputs_(reader, reader.weight[:, channels_of(kept, unit.width)], None)
    keep_sets_(block, unit, kept)
    gone = torch.tensor([0, 2, 3, 5, 7])
    other.weight[:, channels_of(gone, unit.width)] = 0
    for each in (model, dense):
        each.module.float()
    torch.testing.assert_close(answer(model, ids_of()), answer(dense, ids_of()), rtol=1e-3, atol=1e-5)


def test_t5_keeps_its_self_attention_whose_weights_count_in_the_ratio(tiny: Tiny, statistics: Collected) -> None:
    model = pruned(tiny("t5"), statistics("t5"), ratio=0.4)
    for block in model.blocks():
        assert not [unit for unit in block.units if "SelfAttention" in unit.consumer]
        assert block.linear("layer.0.SelfAttention.o").in_features == 64
    assert weigh(model, block_weights(tiny("t5")))["pruning_ratio"] == pytest.approx(0.4, abs=0.02)
    uniform = pruned(tiny("t5"), statistics("t5"), ratio=0.4, allocation="uniform")
    for block, dense in zip(uniform.blocks(), tiny("t5").blocks(), strict=True):
        assert 1 - block.parameters / dense.parameters == pytest.approx(0.4, abs=0.07)  # in steps of 32 channels


def test_a_gated_t5_has_two_ffn_inputs(tiny: Tiny, tmp_path: Path) -> None:
    module = t5(feed_forward_proj="gated-gelu").bfloat16()
    dense = canonicalize_(LoadedModel(module, tiny("t5").tokenizer, "seq2seq"))
    assert [unit.producers for unit in list(dense.blocks())[-1].units][-1] == (
        ("layer.2.DenseReluDense.wi_0", 1),
        ("layer.2.DenseReluDense.wi_1", 1),
    )
    statistics = Statistics(dense, {"one": [ids_of(8, 32)]})
    model = pruned(dense, statistics, ratio=0.5)
    RoundToNearest(bits=4, group_size=32).quantize_(model, statistics, Cpu())
    assert isinstance(model.block("encoder.block.0").linear("layer.1.DenseReluDense.wo"), Int4Linear)
    save(model, tmp_path / "small")
    assert torch.equal(answer(load(tmp_path / "small"), ids_of()), answer(model, ids_of()))
