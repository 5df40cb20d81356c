"""What every pruner of ``conf/pruning`` promises, on every family.

What concerns widths is asked of those that prune widths; whole blocks are tried in ``test_depth``, masks in
``test_masks``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import isnan
from operator import attrgetter

import pytest
import torch
import transformers
from torch import Tensor

from objectives.calibration.statistics import Statistics
from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.packing.weighing import block_weights, weigh
from objectives.pruning.curve import steps
from objectives.pruning.structured import Structured
from tests.objectives.conftest import Tiny
from tests.objectives.families import CORE, DECODERS, answer, each_core_family, pairs
from tests.objectives.recipes import built, choices
from tests.pairwise import pairwise

RATIOS, FEW = (0.1, 0.25, 0.5, 0.6), (0.25, 0.5)
BY_WIDTH = [choice for choice in choices("pruning") if hasattr(built("pruning", choice), "criterion")]
PAIRS = [pair for pair in pairs("pruning") if pair[0] in BY_WIDTH]
Prune = Callable[..., LoadedModel]
each_pruner = pytest.mark.parametrize("choice", choices("pruning"))
each_pair = pytest.mark.parametrize(("choice", "family"), PAIRS)
DECODER_PAIRS = [pair for pair in PAIRS if pair[1] in DECODERS]
CASES = [(*pair, ratio) for pair in PAIRS for ratio in (RATIOS if pair[1] in CORE else FEW)]
each_ratio = pairwise("choice family ratio", CASES)


@pytest.fixture(scope="module")
def prune_anew(tiny: Tiny, statistics: Callable[[str], Statistics]) -> Prune:
    def pruned(family: str, choice: str, ratio: float, **changes: object) -> LoadedModel:
        model = tiny(family).copy()
        built("pruning", choice, ratio=ratio, **changes).prune_(model, statistics(family))
        return model

    return pruned


@pytest.fixture(scope="module")
def prune(prune_anew: Prune) -> Prune:
    """Prune a model once for all tests. Shared: never changed."""
    return cache(prune_anew)


def ids_of(rows: int = 2, tokens: int = 9) -> Tensor:
    return torch.randint(2, 128, (rows, tokens), generator=torch.Generator().manual_seed(3))


def outputs(model: LoadedModel) -> Tensor:
    """In fp32, whatever the model is stored in."""
    widened = model.copy()
    widened.module.float()
    return answer(widened, ids_of())


def same_tensors(one: LoadedModel, other: LoadedModel) -> bool:
    left, right = one.module.state_dict(), other.module.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@each_pruner
@each_core_family
def test_ratio_zero_changes_nothing(tiny: Tiny, prune: Prune, choice: str, family: str) -> None:
    model = prune(family, choice, 0.0)
    assert same_tensors(model, tiny(family))
    assert not model.widths
    assert not model.kept_inputs


@each_ratio
def test_the_share_removed_is_the_one_asked_within_half_a_step(
    tiny: Tiny, prune: Prune, choice: str, family: str, ratio: float
) -> None:
    model, dense = prune(family, choice, ratio), block_weights(tiny(family))
    channel = next(tiny(family).blocks()).units[-1].parameters
    there = sum(b.linear(path).weight.numel() for b in model.blocks() for path in b.stack.block_linears)
    assert weigh(model, dense)["pruning_ratio"] == pytest.approx(1 - there / dense)
    assert abs(1 - there / dense - ratio) <= 0.5 * 32 * channel / dense + 1e-9


@pairwise("choice family ratio", CASES, multiple=[16, 32])
def test_widths_are_those_of_the_manifest_and_multiples_of_what_is_asked(
    tiny: Tiny, prune: Prune, choice: str, family: str, ratio: float, multiple: int
) -> None:
    model = prune(family, choice, ratio, multiple_of=multiple)
    for dense, block in zip(tiny(family).blocks(), model.blocks()):
        for unit, whole in zip(block.units, dense.units, strict=True):
            assert unit.count == model.widths.get(unit.key, whole.count) >= 1
            assert unit.kind == "attention" or unit.count >= multiple
            assert unit.kind == "attention" or unit.count % multiple == 0
        for path in block.stack.block_linears:
            linear = block.linear(path)
            assert linear.weight.shape == (linear.out_features, linear.in_features)
            assert linear.weight.is_contiguous()
            assert linear.bias is None or linear.bias.shape == (linear.out_features,)


@each_ratio
def test_a_pruned_model_is_the_dense_one_whose_consumers_ignore_the_removed_channels(
    tiny: Tiny, prune: Prune, choice: str, family: str, ratio: float
) -> None:
    pruned, dense = prune(family, choice, ratio), tiny(family).copy()
    for small, block in zip(pruned.blocks(), dense.blocks()):
        for unit in block.units:
            path, kept = unit.consumer, pruned.kept_inputs.get(unit.key)
            if kept is None:
                continue
            block.linear(path).weight.zero_()
            block.linear(path).weight[:, kept] = small.linear(path).weight
            if block.linear(path).bias is not None:
                block.linear(path).bias.copy_(small.linear(path).bias)
    assert pruned.kept_inputs
    torch.testing.assert_close(outputs(pruned), outputs(dense), rtol=1e-3, atol=1e-4)


@each_ratio
def test_the_sets_that_go_are_the_first_of_the_criterions_order(
    tiny: Tiny, prune: Prune, statistics: Callable[[str], Statistics], choice: str, family: str, ratio: float
) -> None:
    pruned, criterion = prune(family, choice, ratio), built("pruning", choice).criterion
    for block in tiny(family).blocks():
        for unit in block.units:
            curve = criterion.curve(unit, tiny(family), statistics(family), steps(unit, 32))
            assert curve.losses[0] == 0
            assert all(low <= high + 1e-6 for low, high in zip(curve.losses, curve.losses[1:]))
            kept = pruned.kept_inputs.get(unit.key)
            if kept is not None:
                gone = set(range(unit.count)) - set((kept[:: unit.width] // unit.width).tolist())
                assert gone == set(curve.order[: len(gone)].tolist())


@pairwise("choice family", DECODER_PAIRS, ratio=[0.25, 0.6])
def test_generation_from_the_cache_is_that_of_reading_everything_again(
    prune: Prune, choice: str, family: str, ratio: float
) -> None:
    module = prune(family, choice, ratio).copy().module.float()
    asked = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    generated = module.generate(ids_of(), attention_mask=torch.ones_like(ids_of()), **asked)
    ids = ids_of()
    for _ in range(5):
        step = module(input_ids=ids, use_cache=False).logits[:, -1].argmax(dim=-1, keepdim=True)
        ids = torch.cat([ids, step], dim=1)
    assert torch.equal(generated, ids)


@pytest.mark.parametrize(("choice", "family"), DECODER_PAIRS)
def test_the_cache_holds_only_the_kept_groups(prune: Prune, choice: str, family: str) -> None:
    model = prune(family, choice, 0.6)
    cache = model.module(input_ids=ids_of(2, 5), use_cache=True).past_key_values
    for layer, block in zip(cache.layers, model.blocks(), strict=True):
        heads = block.units[0]
        if heads.kind == "attention":  # Falcon keeps a copy for every query head
            kept = heads.count * (heads.width // block.head_dim if family == "falcon" else 1)
            assert layer.keys.shape == layer.values.shape == (2, kept, 5, block.head_dim)


@each_pair
def test_attributes_count_what_is_left(prune: Prune, choice: str, family: str) -> None:
    for block in prune(family, choice, 0.5).blocks():
        for unit in block.units:
            for path, each in unit.attributes:
                assert attrgetter(path)(block.module) == each * unit.count


@each_pruner
@each_core_family
def test_the_same_settings_give_the_same_model(prune: Prune, prune_anew: Prune, choice: str, family: str) -> None:
    assert same_tensors(prune(family, choice, 0.5), prune_anew(family, choice, 0.5))


@each_pruner
@each_core_family
def test_neither_the_source_nor_its_moments_are_touched(
    tiny: Tiny, statistics: Callable[[str], Statistics], choice: str, family: str
) -> None:
    source, moments = tiny(family), statistics(family).moments
    before, sums = source.copy(), {key: (m.mean.sum(), m.second.sum()) for key, m in moments.items()}
    built("pruning", choice, ratio=0.5).prune_(source.copy(), statistics(family))
    assert same_tensors(source, before)
    assert not source.widths
    assert sums == {key: (m.mean.sum(), m.second.sum()) for key, m in moments.items()}


@each_pair
def test_a_ratio_that_cannot_be_met_names_itself_and_the_place(prune: Prune, choice: str, family: str) -> None:
    with pytest.raises(Unsupported, match=r"pruning\.ratio 0\.9 cannot be met in (the model|[a-z.]+\.0): one KV"):
        prune(family, choice, 0.9)


@pytest.mark.parametrize("choice", ["activation", "magnitude"])
def test_what_rounding_leaves_in_one_block_is_made_good_in_the_next(tiny: Tiny, prune: Prune, choice: str) -> None:
    """5 % of a block are 12 of 128 FFN channels: steps of 32 cannot give that in any single block."""
    model = prune("llama", choice, 0.05)
    assert list(model.widths.values()) == [96]
    assert weigh(model, block_weights(tiny("llama")))["pruning_ratio"] == pytest.approx(0.05, abs=0.012)


@each_pair
def test_the_two_kinds_can_be_pruned_apart(tiny: Tiny, prune: Prune, choice: str, family: str) -> None:
    model = prune(family, choice, 0.0, ffn_ratio=0.5)
    own = {unit.key: unit.count for block in tiny(family).blocks() for unit in block.units if unit.kind == "ffn"}
    assert model.widths.keys() == own.keys()
    assert sum(model.widths.values()) == 0.5 * sum(own.values())
    if not any(unit.kind == "attention" for block in tiny(family).blocks() for unit in block.units):
        return
    heads = prune(family, choice, 0.0, attention_ratio=0.5)
    assert heads.widths
    assert heads.widths.keys() <= {u.key for b in heads.blocks() for u in b.units if u.kind == "attention"}


def test_the_predicted_loss_grows_with_the_ratio(prune: Prune) -> None:
    losses = [prune("llama", "structured", ratio).predicted_loss for ratio in (0.6, 0.1, 0.3)]
    assert 0 < losses[1] < losses[2] < losses[0]
    assert prune("llama", "structured", 0.0).predicted_loss == 0
    assert isnan(prune("llama", "magnitude", 0.3).predicted_loss)  # weight norms predict nothing


def test_a_single_kv_group_stays_and_the_rest_gives_what_is_asked() -> None:
    """Multi-query attention, as in Gemma: there is nothing to choose between."""
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1,
    )  # fmt: skip
    source = LoadedModel(transformers.LlamaForCausalLM(config).eval().requires_grad_(False), None, "causal_lm")
    model = source.copy()
    Structured(ratio=0.25).prune_(model, Statistics(source, {"random": [ids_of(8, 32)]}))
    assert model.widths.keys() <= {(f"layers.{index}", "mlp.down_proj") for index in range(2)}
    assert weigh(model, block_weights(source))["pruning_ratio"] == pytest.approx(0.25, abs=0.06)
    with pytest.raises(Unsupported, match=r"pruning\.attention_ratio 0\.5 cannot be met in the model: one KV"):
        Structured(attention_ratio=0.5).prune_(source.copy(), Statistics(source, {"random": [ids_of(8, 32)]}))


def test_a_model_of_another_family_is_named_with_those_known() -> None:
    from objectives.models.families import family_of

    with pytest.raises(
        Unsupported, match=r"'blom' is not described: .* built like bloom, \+model\.families=.*; known: al"
    ):
        family_of("blom")
