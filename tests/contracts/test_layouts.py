"""What ``layout`` promises of the shapes that structured pruning leaves, on every family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import product

import pytest
import torch
import transformers

from objectives.calibration.statistics import Statistics
from objectives.errors import Unsupported
from objectives.measuring.footprint import fake_copy
from objectives.models import LoadedModel
from objectives.packing.weighing import block_weights, weigh
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.curve import steps
from objectives.pruning.layouts import LAYOUTS
from objectives.pruning.plain_heads import plain_groups
from objectives.pruning.structured import Structured
from tests.objectives.conftest import Tiny
from tests.objectives.families import answer, each_family

StatisticsOf = Callable[[str], Statistics]
LLAMA = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 16,
}  # fmt: skip


def widths(model: LoadedModel) -> dict[tuple[str, str, int], set[int]]:
    """Sets of the dense model by stack and kind, and how many of them the blocks kept."""
    found = defaultdict(set)
    for block in model.blocks():
        for unit in block.units:
            found[block.stack.layers, unit.kind, unit.width].add(unit.count)
    return found


def pruned(source: LoadedModel, statistics: Statistics, pruner: Structured) -> LoadedModel:
    model = source.copy()
    pruner.prune_(model, statistics)
    return model


def wide(seed: int = 1) -> tuple[LoadedModel, Statistics]:
    """A Llama whose FFN has three times 256 channels."""
    torch.manual_seed(seed)
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).eval().requires_grad_(False)
    source = LoadedModel(module, None, "causal_lm")
    ids = torch.randint(2, 128, (8, 32), generator=torch.Generator().manual_seed(2))
    return source, Statistics(source, {"random": [ids]})


@each_family
def test_uniform_leaves_equal_widths_in_all_blocks_of_a_stack(
    tiny: Tiny, statistics: StatisticsOf, family: str
) -> None:
    dense, sayable = tiny(family), plain_groups(tiny(family))
    model = pruned(dense, statistics(family), Structured(ffn_ratio=0.5, attention_ratio=0.0, layout="uniform"))
    assert model.widths
    for (stack, kind, _), counts in widths(model).items():
        assert len(counts) == 1
        if kind == "attention":
            assert counts <= sayable[stack]
        else:
            assert counts.pop() % 64 == 0


@each_family
def test_uniform_removes_no_heads_that_a_plain_config_must_name(
    tiny: Tiny, statistics: StatisticsOf, family: str
) -> None:
    """Heads of BERT are as wide as their number says; those of T5 are counted once for both stacks."""
    dense, sayable = tiny(family), plain_groups(tiny(family))
    wanted = Structured(attention_ratio=0.5, ffn_ratio=0.0, layout="uniform")
    if not sayable:  # Bloom's heads cannot go
        assert not pruned(dense, statistics(family), wanted).widths
    elif all(len(groups) == 1 for groups in sayable.values()):
        with pytest.raises(Unsupported, match=r"attention_ratio 0\.5 cannot be met in .*layout=uniform keeps"):
            pruned(dense, statistics(family), wanted)
    else:
        model = pruned(dense, statistics(family), wanted)
        left = {stack: counts for (stack, kind, _), counts in widths(model).items() if kind == "attention"}
        assert all(len(counts) == 1 and counts <= sayable[stack] for stack, counts in left.items())
        assert any(counts != {max(sayable[stack])} for stack, counts in left.items())


@each_family
@pytest.mark.parametrize("layout", ["uniform", "free"])
def test_prediction_and_fake_shapes_are_those_of_the_pruned_model(
    tiny: Tiny, statistics: StatisticsOf, family: str, layout: str
) -> None:
    pruner = Structured(ratio=0.25, layout=layout)
    model, fake = pruned(tiny(family), statistics(family), pruner), fake_copy(tiny(family))
    pruner.resize_fake_(fake, statistics(family))
    for real, sketched in zip(model.blocks(), fake.blocks(), strict=True):
        for path in real.stack.block_linears:
            assert real.linear(path).weight.shape == sketched.linear(path).weight.shape
    assert pruner.predict(statistics(family)) == pytest.approx(model.predicted_loss)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_a_uniform_decoder_is_what_a_plain_config_says(tiny: Tiny, statistics: StatisticsOf, family: str) -> None:
    model = pruned(tiny(family), statistics(family), Structured(ratio=0.5, layout="uniform"))
    block = next(model.blocks())
    heads, ffn = block.units
    said = {**model.module.config.to_dict(), "intermediate_size": ffn.count, "num_key_value_heads": heads.count}
    said |= {"num_attention_heads": heads.count * heads.width // block.head_dim, "head_dim": block.head_dim}
    stock = type(model.module)(type(model.module.config).from_dict(said)).float().eval()
    stock.load_state_dict(model.module.state_dict())
    widened = model.copy()
    widened.module.float()
    assert (heads.count, ffn.count) != tuple(unit.count for unit in next(tiny(family).blocks()).units)
    ids = torch.arange(2, 20)[None]
    torch.testing.assert_close(answer(LoadedModel(stock, None, "causal_lm"), ids), answer(widened, ids))


def test_uniform_widths_are_the_cheapest_of_all_that_come_as_near() -> None:
    source, statistics = wide()
    pruner = Structured(ratio=0.3, layout="uniform")
    curves = {
        unit.key: pruner.criterion.curve(unit, source, statistics, steps(unit, 64))
        for block in source.blocks()
        for unit in block.units
    }
    heads, ffns = ([one for one in curves.values() if one.unit.kind == kind] for kind in ("attention", "ffn"))
    whole = block_weights(source)
    fits = {}
    for groups, channels in product(range(len(heads[0].removed)), range(len(ffns[0].removed))):
        gone = sum(one.gains[groups] for one in heads) + sum(one.gains[channels] for one in ffns)
        if abs(gone - 0.3 * whole) <= 0.5 * sum(one.gains[1] for one in ffns):
            loss = sum(one.losses[groups] for one in heads) + sum(one.losses[channels] for one in ffns)
            fits[loss / gone] = (heads[0].unit.count - groups, 768 - 64 * channels)
    model = pruned(source, statistics, pruner)
    assert len(fits) > 1
    assert tuple(unit.count for unit in next(model.blocks()).units) == fits[min(fits)]


def test_every_block_keeps_its_own_cheapest_channels() -> None:
    source, statistics = wide()
    model = pruned(source, statistics, Structured(ffn_ratio=0.5, attention_ratio=0.0, layout="uniform"))
    one, other = (model.kept_inputs[f"layers.{index}", "mlp.down_proj"] for index in range(2))
    assert len(one) == len(other) == 384
    assert not torch.equal(one, other)


def test_weights_by_norm_leave_equal_widths_too() -> None:
    """Norms of different blocks do not compare: each block counts as much as any other."""
    source, statistics = wide()
    quiet = source.copy()
    for name, weight in quiet.module.named_parameters():
        if ".0." in name:
            weight.mul_(1000.0)  # a loud block decides no more than a quiet one
    pruner = Structured(ratio=0.4, layout="uniform", criterion=Magnitude())
    plain, loud = (pruned(model, Statistics(model, statistics.domains), pruner) for model in (source, quiet))
    assert all(len(counts) == 1 for counts in widths(plain).values())
    assert plain.widths == loud.widths


def test_deci_keeps_all_heads_and_widths_in_multiples_of_256() -> None:
    source, statistics = wide()
    model = pruned(source, statistics, Structured(ratio=0.2, layout="deci"))
    assert {unit.count for block in model.blocks() for unit in block.units if unit.kind == "attention"} == {4}
    ffns = [unit.count for block in model.blocks() for unit in block.units if unit.kind == "ffn"]
    assert sorted(ffns) == [512, 768]
    with pytest.raises(
        Unsupported, match=r"ratio 0\.8 cannot be met in the model: layout=deci keeps all heads, and 256"
    ):
        pruned(source, statistics, Structured(ratio=0.8, layout="deci"))
    with pytest.raises(Unsupported, match=r"attention_ratio 0\.5 cannot be met in the model: layout=deci keeps"):
        pruned(source, statistics, Structured(attention_ratio=0.5, layout="deci"))


@pytest.mark.parametrize("layout", ["uniform", "deci"])
def test_whole_blocks_may_go_first(layout: str) -> None:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**{**LLAMA, "num_hidden_layers": 4})
    source = LoadedModel(transformers.LlamaForCausalLM(config).eval().requires_grad_(False), None, "causal_lm")
    ids = torch.randint(2, 128, (4, 32), generator=torch.Generator().manual_seed(2))
    statistics = Statistics(source, {"random": [ids]})
    model = pruned(source, statistics, Structured(ratio=0.5, depth_share=0.5, layout=layout))
    assert len(list(model.blocks())) == 3
    assert model.widths
    assert weigh(model, block_weights(source))["pruning_ratio"] == pytest.approx(0.5, abs=0.05)


def test_a_share_that_the_steps_cannot_meet_is_told() -> None:
    source, statistics = wide()
    near = pruned(source, statistics, Structured(ratio=0.2, layout="uniform"))
    assert not near.notes
    far = pruned(source, statistics, Structured(ratio=0.25, layout="deci"))
    assert [str(note) for note in far.notes] == [
        "30.0% of the block parameters are gone, 25.0% were asked for: layout=deci has widths in steps of 256"
    ]


@pytest.mark.parametrize(
    ("layout", "multiple_of", "step"),
    [("free", 32, 32), ("free", 48, 48), ("uniform", 32, 64), ("uniform", 48, 96), ("uniform", 128, 128),
     ("deci", 32, 256), ("deci", 48, 768)],
)  # fmt: skip
def test_steps_are_multiples_of_what_is_asked_and_of_what_the_layout_needs(
    layout: str, multiple_of: int, step: int
) -> None:
    assert LAYOUTS[layout].step(multiple_of) == step  # type: ignore[index]
