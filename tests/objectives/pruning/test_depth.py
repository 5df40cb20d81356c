"""Whole blocks: which go, what is left running, and back from disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from objectives.calibration.divergence import divergence_from
from objectives.calibration.moments import sample_rows
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import ModelError, Unsupported
from objectives.export.checkpoint import load, save
from objectives.models import LoadedModel
from objectives.packing.weighing import block_weights, weigh
from objectives.pruning.depth import Depth
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from tests.objectives.conftest import Tiny
from tests.objectives.families import DECODERS, SHORTENED, answer

Collected = Callable[[str], Statistics]


def ids_of(rows: int = 2, tokens: int = 9) -> Tensor:
    return torch.randint(2, 128, (rows, tokens), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def deep() -> tuple[LoadedModel, Statistics]:
    """Five blocks of very different weight."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    module = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    for block, scale in zip(module.model.layers, (3.0, 0.5, 4.0, 1.0, 2.0)):
        for linear in (block.mlp.down_proj, block.self_attn.o_proj):
            linear.weight.mul_(scale)
    model = LoadedModel(module, None, "causal_lm")
    return model, Statistics(model, {"one": [ids_of(4, 32)], "two": [ids_of(4, 32).flip(1)]})


def without(model: LoadedModel, gone: set[int]) -> LoadedModel:
    """The naive way: a copy, the blocks deleted by hand."""
    copy = model.copy()
    layers = copy.module.model.layers
    copy.module.model.layers = nn.ModuleList([layer for index, layer in enumerate(layers) if index not in gone])
    for index, layer in enumerate(copy.module.model.layers):
        layer.self_attn.layer_idx = index
    copy.module.config.num_hidden_layers = len(copy.module.model.layers)
    return copy


def test_the_blocks_that_go_are_those_a_full_greedy_search_removes(deep: tuple[LoadedModel, Statistics]) -> None:
    dense, statistics = deep
    divergence = divergence_from(dense, sample_rows(statistics.domains, 128))
    gone: set[int] = set()
    for count in (1, 2, 3):
        costs = {i: divergence(without(dense, gone | {i})) for i in range(5) if i not in gone}
        cheapest = min(costs, key=costs.__getitem__)
        gone.add(cheapest)
        model = dense.copy()
        Depth(ratio=count / 5, tokens=128).prune_(model, statistics)
        assert model.layers == {"layers": tuple(i for i in range(5) if i not in gone)}
        assert model.predicted_loss == pytest.approx(costs[cheapest])
        assert torch.equal(answer(model, ids_of()), answer(without(dense, gone), ids_of()))


@pytest.mark.parametrize(("ratio", "left"), [(0.0, 5), (0.09, 5), (0.11, 4), (0.29, 4), (0.31, 3), (0.8, 1)])
def test_the_number_of_blocks_is_the_nearest(deep: tuple[LoadedModel, Statistics], ratio: float, left: int) -> None:
    dense, statistics = deep
    model = dense.copy()
    Depth(ratio=ratio, tokens=64, candidates=2).prune_(model, statistics)
    assert len(list(model.blocks())) == model.module.config.num_hidden_layers == left
    assert weigh(model, block_weights(dense))["pruning_ratio"] == pytest.approx(1 - left / 5)


def test_the_last_block_stays(deep: tuple[LoadedModel, Statistics]) -> None:
    dense, statistics = deep
    with pytest.raises(Unsupported, match=r"pruning: 0\.95 of the parameters cannot go as whole blocks"):
        Depth(ratio=0.95, tokens=64).prune_(dense.copy(), statistics)


def test_the_dense_model_keeps_its_blocks(deep: tuple[LoadedModel, Statistics]) -> None:
    dense, statistics = deep
    before = answer(dense, ids_of())
    Depth(ratio=0.6, tokens=64).prune_(dense.copy(), statistics)
    assert [layer.self_attn.layer_idx for layer in dense.module.model.layers] == [0, 1, 2, 3, 4]
    assert dense.module.config.num_hidden_layers == 5
    assert torch.equal(answer(dense, ids_of()), before)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_depth_and_width_together_remove_what_is_asked(deep: tuple[LoadedModel, Statistics], share: float) -> None:
    dense, statistics = deep
    model = dense.copy()
    Structured(ratio=0.4, depth_share=share, multiple_of=16).prune_(model, statistics)
    assert weigh(model, block_weights(dense))["pruning_ratio"] == pytest.approx(0.4, abs=0.02)
    assert len(list(model.blocks())) == {0.0: 5, 0.5: 4, 1.0: 3}[share]
    assert {block for block, _ in model.widths} <= {block.name for block in model.blocks()}
    assert bool(model.widths) == (share < 1)


@pytest.fixture
def shallow(tiny: Tiny, statistics: Collected) -> Callable[[str], LoadedModel]:
    """A tiny model without one block (of each stack, where it has two), its widths pruned too."""

    def pruned(family: str) -> LoadedModel:
        model = tiny(family).copy()
        Structured(ratio=0.6, depth_share=0.8).prune_(model, statistics(family))
        assert model.layers
        return model

    return pruned


@pytest.mark.parametrize("family", sorted(set(DECODERS) & set(SHORTENED)))
def test_generation_from_the_cache_is_that_of_reading_everything_again(
    shallow: Callable[[str], LoadedModel], family: str
) -> None:
    model = shallow(family)
    module = model.module.float()
    asked = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    generated = module.generate(ids_of(), attention_mask=torch.ones_like(ids_of()), **asked)
    ids = ids_of()
    for _ in range(5):
        step = module(input_ids=ids, use_cache=False).logits[:, -1].argmax(dim=-1, keepdim=True)
        ids = torch.cat([ids, step], dim=1)
    assert torch.equal(generated, ids)
    cache = module(input_ids=ids, use_cache=True).past_key_values
    assert len(cache.layers) == len(list(model.blocks()))


@pytest.mark.parametrize("family", SHORTENED)
def test_it_comes_back_from_disk(
    shallow: Callable[[str], LoadedModel], statistics: Collected, tmp_path: Path, family: str
) -> None:
    model = shallow(family)
    RoundToNearest(bits=8).quantize_(model, statistics(family), Cpu())
    save(model, tmp_path / "winner")
    again = load(tmp_path / "winner")
    assert again.layers == model.layers
    assert again.widths == model.widths
    assert torch.equal(answer(again, ids_of()), answer(model, ids_of()))
    manifest = tmp_path / "winner" / "paretune.json"
    manifest.write_text(manifest.read_text().replace('"layers": {', '"layers": {"nowhere": [1],', 1))
    with pytest.raises(ModelError, match=r"paretune\.json keeps nowhere \[1\], the config has none"):
        load(tmp_path / "winner")


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.45, 0.6])
def test_t5_still_writes_when_it_lost_blocks(ratio: float) -> None:
    config = transformers.T5Config(
        vocab_size=128, d_model=32, d_kv=16, num_heads=2, d_ff=64, num_layers=4, num_decoder_layers=4,
        decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    module = transformers.T5ForConditionalGeneration(config).eval().requires_grad_(False)
    dense = LoadedModel(module, None, "seq2seq")
    model = dense.copy()
    Depth(ratio=ratio).prune_(model, Statistics(dense, {"one": [ids_of(4, 16)]}))
    left = [len(model.layers_of(stack)) for stack in model.family.stacks]
    assert sum(left) < 8
    assert left[0] >= left[1]
    assert model.module.generate(ids_of(), max_new_tokens=3).shape == (2, 4)
