"""What families describe: in every architecture and layout, sets of channels that go without the others noticing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from pydantic import TypeAdapter
from torch import Tensor, nn

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import Unsupported
from objectives.export.checkpoint import load, save
from objectives.models import Checkpoint, LoadedModel, require_units
from objectives.models.anatomy import Family
from objectives.models.blocks import Unit
from objectives.models.families import FAMILIES, relative, undescribed
from objectives.packing import bf16, capability, embedding, int8, linear
from objectives.pruning import surgery
from objectives.pruning.criteria.activation import Activation
from objectives.pruning.depth import Depth
from objectives.pruning.structured import Structured
from objectives.pruning.wanda import Wanda
from objectives.quantization.gptq import Gptq
from objectives.quantization.round_to_nearest import RoundToNearest
from search.errors import ConfigError
from search.space.instantiate import ALLOWED, build
from search.space.space import build_space
from search.space.supported import without_unsupported
from tests.conftest import SIZES, VARIANTS
from tests.objectives.conftest import Tiny
from tests.objectives.families import SHORTENED, TRIED, answer
from tests.objectives.recipes import CONF

each_layout = pytest.mark.parametrize("family", [*sorted(FAMILIES), *VARIANTS])
IDS = torch.randint(2, 128, (2, 12), generator=torch.Generator().manual_seed(3))


def test_every_family_is_tried() -> None:
    assert SIZES.keys() == FAMILIES.keys()


@each_layout
def test_a_model_without_sets_answers_as_the_dense_one_whose_consumers_do_not_hear_them(
    tiny: Tiny, family: str
) -> None:
    require_exact_units(tiny(family))


def require_exact_units(model: LoadedModel) -> None:
    """Every unit loses another part of its sets: a row taken from a wrong place shows in the answer."""
    dense = model.copy()
    dense.module.float()
    pruned = dense.copy()
    generator = torch.Generator().manual_seed(4)
    kept = {}
    for block in dense.blocks():
        for unit in block.units:
            count = max(1, int(unit.count * (0.3 + 0.6 * float(torch.rand(1, generator=generator)))))
            kept[unit.key] = torch.randperm(unit.count, generator=generator)[:count].sort().values
            _keep_(pruned, unit, kept[unit.key])
    assert kept
    with _deaf(dense, kept):
        wanted = answer(dense, IDS)
    assert not torch.allclose(answer(dense, IDS), wanted, atol=1e-3)
    torch.testing.assert_close(answer(pruned, IDS), wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - set(TRIED)))
def test_a_family_that_is_like_others_is_pruned_packed_and_comes_back(
    tiny: Tiny, statistics: Callable[[str], Statistics], tmp_path: Path, family: str
) -> None:
    model = tiny(family).copy()
    Structured(ratio=0.3, multiple_of=8, criterion=Activation()).prune_(model, statistics(family))
    assert model.widths
    Gptq(bits=4).quantize_(model, statistics(family), Cpu(threads=1))
    save(model, tmp_path / "winner")
    assert torch.equal(answer(load(tmp_path / "winner"), IDS), answer(model, IDS))


@pytest.mark.parametrize("family", sorted(set(TRIED) - set(SHORTENED)))
def test_blocks_that_stand_for_others_stay(tiny: Tiny, statistics: Callable[[str], Statistics], family: str) -> None:
    with pytest.raises(Unsupported, match="one must stay in a stack"):
        Depth(ratio=0.6).prune_(tiny(family).copy(), statistics(family))


def _keep_(model: LoadedModel, unit: Unit, kept: Tensor) -> None:
    block = model.block(unit.block)
    reader = block.linear(unit.consumer)
    surgery.set_inputs_(reader, reader.weight[:, surgery.channels_of(kept, unit.width)], reader.bias)
    surgery.keep_sets_(block, unit, kept)


@contextmanager
def _deaf(model: LoadedModel, kept: dict[tuple[str, str], Tensor]) -> Iterator[None]:
    """Every consumer reads zeros for the sets that are not ``kept``."""
    handles = []
    for block in model.blocks():
        for unit in block.units:
            heard = torch.zeros(unit.count * unit.width)
            heard[surgery.channels_of(kept[unit.key], unit.width)] = 1.0

            def mask(_module: nn.Module, inputs: tuple[Tensor, ...], heard: Tensor = heard) -> tuple[Tensor, ...]:
                return (inputs[0] * heard, *inputs[1:])

            handles.append(block.linear(unit.consumer).register_forward_pre_hook(mask))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


PAGE = Path(__file__).parents[3] / "docs" / "adding_a_family.md"
XGLM = {"vocab_size": 128, "d_model": 64, "num_layers": 2, "attention_heads": 4, "ffn_dim": 128}


@pytest.fixture
def xglm(tiny: Tiny, tmp_path: Path) -> Path:
    """A folder of a type that no row describes."""
    torch.manual_seed(0)
    module = transformers.XGLMForCausalLM(transformers.XGLMConfig(**XGLM, pad_token_id=0, bos_token_id=0))
    module.to(torch.bfloat16).save_pretrained(tmp_path / "xglm")
    tiny("llama").tokenizer.save_pretrained(tmp_path / "xglm")
    return tmp_path / "xglm"


def row_of_the_page() -> dict[str, Any]:
    """The yaml of the worked example."""
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = yaml.safe_load(block)["families"]
    return found


def own_row() -> Family:
    """As a module of a user would give it."""
    return TypeAdapter(Family).validate_python(row_of_the_page()["xglm"])


@pytest.mark.parametrize("way", ["yaml", "module"])
def test_the_row_of_the_page_prunes_exports_and_comes_back(xglm: Path, way: str) -> None:
    target = {"xglm": {"_target_": f"{__name__}.own_row"}}
    node = {
        "_target_": "objectives.models.Checkpoint", "path": str(xglm), "head": "causal_lm",
        "families": row_of_the_page() if way == "yaml" else target,
    }  # fmt: skip
    checkpoint = build(node, "model", (*ALLOWED, "tests."))
    assert checkpoint.unprunable() is None
    source = checkpoint.load()
    require_exact_units(source)
    model = source.copy()
    Structured(ratio=0.3, multiple_of=8).prune_(model, Statistics(source, {"random": [IDS]}))
    RoundToNearest(bits=8).quantize_(model, Statistics(source, {}), Cpu(threads=1))
    assert model.widths
    save(model, xglm.parent / "winner")
    again = load(xglm.parent / "winner")
    assert again.widths == model.widths
    assert torch.equal(answer(again, IDS), answer(model, IDS))


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_what_no_row_describes_is_quantised_exported_and_never_pruned(xglm: Path, bits: int) -> None:
    checkpoint = Checkpoint(path=str(xglm), head="causal_lm")
    assert "model type 'xglm' is not described: it is quantised" in str(checkpoint.unprunable())
    source = checkpoint.load()
    assert sum(len(block.stack.block_linears) for block in source.blocks()) == 2 * 6
    assert not [unit for block in source.blocks() for unit in block.units]
    model, statistics = source.copy(), Statistics(source, {"random": [IDS]})
    Gptq(bits=bits).quantize_(model, statistics, Cpu(threads=1))  # type: ignore[arg-type]
    save(model, xglm.parent / "winner")
    assert torch.equal(answer(load(xglm.parent / "winner"), IDS), answer(model, IDS))
    require_units(model, Structured(ratio=0.0))
    for pruner in (Structured(ratio=0.1), Structured(ffn_ratio=0.1), Depth(ratio=0.5), Wanda(ratio=0.5)):
        with pytest.raises(Unsupported, match="pruning: model type 'xglm' is not described"):
            require_units(model, pruner)


def test_ratios_above_zero_leave_the_space_of_a_model_that_no_row_describes(xglm: Path) -> None:
    unprunable = Checkpoint(path=str(xglm), head="causal_lm").unprunable()
    parts = {
        part: yaml.safe_load((CONF / part / f"{name}.yaml").read_text())
        for part, name in {
            "pruning": "structured", "quantization": "gptq", "workload": "generation", "recovery": "off",
            "runtime": "torch", "kv": "default",
        }.items()
    }  # fmt: skip
    space = build_space({"pruning": {"ratio": [0, 0.25]}, "quantization": {"bits": [16, 8]}}, parts)
    left = without_unsupported(space, "causal_lm", Cpu(threads=1), unprunable)
    assert {values[0] for values in left.outside} == {0.25}
    assert len(left.outside) == 2
    with pytest.raises(ConfigError, match="no cell can be run; pruning: model type 'xglm' is not described"):
        without_unsupported(build_space({"pruning": {"ratio": [0.25]}}, parts), "causal_lm", Cpu(), unprunable)


@pytest.mark.parametrize(
    ("model_type", "fields", "near"),
    [("llama4x", (), "llama"), ("qwen2x", (), "qwen2"), ("zzz", ("rms_norm_eps",), "llama"), ("zzz", (), None)],
)
def test_the_nearest_relative_is_named(model_type: str, fields: tuple[str, ...], near: str | None) -> None:
    assert relative(model_type, fields) == near
    assert ("if it is built like" in undescribed(model_type, fields)) == (near is not None)


def test_experts_that_stay_in_16_bits_are_told() -> None:
    assert "; its experts stay in 16 bits" in undescribed("llama4_text", ["num_local_experts"])
    assert "experts" not in undescribed("gpt_oss", ["num_local_experts"])


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({"mine": "lama"}, "a described type expected .did you mean llama"),
        ({"mine": {"stacks": [{"layers": "h", "nonsense": 1}]}}, "nonsense"),
        ({"mine": {"stack": []}}, "families"),
    ],
)
def test_a_row_that_says_nothing_is_refused_in_one_line(families: dict[str, Any], message: str) -> None:
    node = {"_target_": "objectives.models.Checkpoint", "path": "x", "head": "encoder", "families": families}
    with pytest.raises(ConfigError, match=message) as caught:
        build(node, "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_tables_that_are_read_whole_are_as_wide_as_what_is_computed(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    """A CPU without bf16 computes in fp32: position embeddings that stayed in 16 bits would meet queries in 32."""
    for module in (capability, bf16, embedding, int8, linear):
        monkeypatch.setattr(module, "cpu_kernels", lambda: capability.CpuKernels(bf16=False, int8=False))
    model = tiny("deberta-v2, own keys").copy()
    RoundToNearest(bits=bits).quantize_(model, Statistics(model, {}), Cpu(threads=1))  # type: ignore[arg-type]
    assert model.module.encoder.rel_embeddings.weight.dtype == torch.float32
    assert answer(model, IDS).isfinite().all()
