"""Experts apart: bit by bit what transformers computes, and units and linears like any other."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from objectives.calibration.gradients import collect_gradients
from objectives.calibration.moments import Moment, collect_moments
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import Unsupported
from objectives.export.checkpoint import load, save
from objectives.models import LoadedModel
from objectives.models.canonical import canonicalize_
from objectives.models.experts import Experts
from objectives.models.families import FAMILIES, FUSED_EXPERTS, undescribed
from objectives.models.hybrids import REFUSED
from objectives.packing.capability import cpu_kernels
from objectives.pruning.criteria.activation import Activation
from objectives.pruning.criteria.kfac import KFac
from objectives.pruning.criteria.obs import Obs
from objectives.pruning.criterion import Criterion
from objectives.pruning.structured import Structured
from objectives.quantization.gptq import Gptq
from objectives.runtime.engines.graph_export import export
from tests.conftest import SIZES
from tests.objectives.conftest import Tiny

IDS = torch.randint(2, 128, (2, 24), generator=torch.Generator().manual_seed(3))
OTHERS: dict[str, dict[str, Any]] = {
    "gpt_oss": {**SIZES["mixtral"], "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "granitemoe": SIZES["mixtral"],
    "hunyuan_v1_moe": SIZES["mixtral"],
}
"""Types that no row describes: transposed, with biases, interleaved."""
WITH_EXPERTS = sorted(name for name, sizes in SIZES.items() if "moe_k" in sizes)


def stock(family: str) -> Any:
    """As transformers builds and runs it, expert by expert."""
    config = transformers.AutoConfig.for_model(family, **(SIZES.get(family) or OTHERS[family]))
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.bfloat16, experts_implementation="eager"
    ).eval()


@pytest.mark.parametrize("family", [*WITH_EXPERTS, *OTHERS])
def test_apart_they_answer_as_together_bit_by_bit_where_bf16_has_kernels(family: str) -> None:
    module = stock(family)
    with torch.inference_mode():
        wanted = module(IDS, use_cache=False).logits
        for part in list(module.named_modules()):
            if type(part[1]).__name__.endswith("Experts"):
                module.set_submodule(part[0], Experts(part[1]))
        found = module(IDS, use_cache=False).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=0 if cpu_kernels().bf16 else 2**-7)
    assert any(isinstance(part, Experts) for part in module.modules())
    assert not [name for name, weight in module.named_parameters() if weight.dim() > 2]


def test_an_index_beyond_the_last_expert_is_none() -> None:
    experts = Experts(stock("mixtral").base_model.layers[0].mlp.experts)
    rows, weights = torch.randn(3, 64, dtype=torch.bfloat16), torch.ones(3, 1, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(experts(rows, torch.full((3, 1), 4), weights), torch.zeros_like(rows))


@pytest.fixture
def lonely(tiny: Tiny) -> LoadedModel:
    """A Mixtral whose routers send nothing to the last expert."""
    model = tiny("mixtral").copy()
    for block in model.module.base_model.layers:
        block.mlp.gate = _Without(block.mlp.gate)
    return model


class _Without(nn.Module):
    def __init__(self, router: Any) -> None:
        super().__init__()
        self.router = router

    def forward(self, rows: torch.Tensor) -> Any:
        logits, weights, index = self.router(rows)
        return logits, weights, torch.where(index == 3, 4, index)


def test_an_expert_that_no_token_reached_costs_nothing_and_is_told(lonely: LoadedModel) -> None:
    statistics = Statistics(lonely, {"text": [IDS], "other": [IDS[:1, :5]]})
    key = ("layers.0", "mlp.experts.3.down_proj")
    assert statistics.unread == []
    torch.testing.assert_close(statistics.moments[key].second, Moment.unread(128).second)
    assert not statistics.gradients[key].any()
    assert ".".join(key) in statistics.unread
    assert all(".3." in name for name in statistics.unread)
    model = lonely.copy()
    Structured(ratio=0.3, multiple_of=8).prune_(model, statistics)
    assert model.widths[key] == 8
    Gptq(bits=4).quantize_(model, statistics, Cpu(threads=1))
    assert torch.isfinite(model.module(IDS).logits).all()


def test_an_expert_weighs_as_many_tokens_as_it_read(tiny: Tiny) -> None:
    model = tiny("mixtral")
    experts: Any = model.module.base_model.layers[0].mlp.experts
    read: list[int] = []
    handle = experts.get_submodule("0.down_proj").register_forward_pre_hook(
        lambda _module, inputs: read.append(len(inputs[0]))
    )
    moments = collect_moments(model, {"text": [IDS]})
    handle.remove()
    key = ("layers.0", "mlp.experts.0.down_proj")
    assert moments[key].share == read[0] / IDS.numel()
    assert moments["layers.0", "self_attn.q_proj"].share == 1.0
    gradients = collect_gradients(model, {"text": [IDS]})
    twice = collect_gradients(model, {"text": [IDS], "again": [IDS]})
    assert gradients[key].trace() > 0
    torch.testing.assert_close(twice[key], gradients[key], rtol=0.5, atol=1e-6)


def test_domains_weigh_as_much_as_an_expert_reads_of_them(tiny: Tiny) -> None:
    model, domains = tiny("mixtral"), {"a": [IDS], "b": [IDS.flip(0)[:1, :9]]}
    both, each = collect_moments(model, domains), [collect_moments(model, {"x": rows}) for rows in domains.values()]
    for key, moment in both.items():
        parts = [one[key] for one in each]
        shares = sum(part.share for part in parts)
        if shares:
            wanted = sum(part.second * (part.share / shares) for part in parts)
            torch.testing.assert_close(moment.second, wanted)


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_experts_are_cut_alone_and_come_back(
    tiny: Tiny, statistics: Callable[[str], Statistics], tmp_path: Path, family: str
) -> None:
    model = tiny(family).copy()
    Structured(ratio=0.0, ffn_ratio=0.4, multiple_of=8).prune_(model, statistics(family))
    widths = {kept for (_, path), kept in model.widths.items() if ".experts." in path}
    assert len(widths) > 1
    Gptq(bits=8).quantize_(model, statistics(family), Cpu(threads=1))
    save(model, tmp_path / "winner")
    with torch.inference_mode():
        assert torch.equal(load(tmp_path / "winner").module(IDS).logits, model.module(IDS).logits)


def test_graphs_refuse_experts_in_words(tiny: Tiny) -> None:
    with pytest.raises(Unsupported, match="which experts a token is sent to depends on it"):
        export(tiny("olmoe"))


def test_a_router_that_is_called_a_linear_stays_one_of_its_class() -> None:
    model = LoadedModel(stock("phimoe"), None, "causal_lm")
    router = type(model.module.base_model.layers[0].mlp.router)
    assert issubclass(router, nn.Linear)
    canonicalize_(model)
    Cpu(threads=1).to_device_(model)
    assert type(model.module.base_model.layers[0].mlp.router) is router


def derived(answer: Any, name: str = "forward") -> Any:
    """A class of linears that does something else to what a linear answers."""
    plain = getattr(nn.Linear, name)
    return type("Derived", (nn.Linear,), {name: lambda self, rows: answer(plain(self, rows))})


@pytest.mark.parametrize(
    ("kind", "stays"),
    [
        (derived(lambda found: found / 2), True),
        (derived(lambda found: found.clamp(-50, 50)), True),
        (derived(lambda found: found.double()), True),
        (derived(lambda found: found * 2, "__call__"), True),
        (derived(lambda found: (found, found)), True),
        (derived(lambda found: found), False),
        (type("Named", (nn.Linear,), {}), False),
    ],
)
def test_a_class_of_its_own_is_a_linear_where_it_answers_as_one(tiny: Tiny, kind: Any, stays: bool) -> None:
    model = tiny("llama").copy()
    own = kind(64, 32)
    model.module.base_model.layers[0].extra = own
    canonicalize_(model)
    extra: Any = model.module.base_model.layers[0].extra
    assert (type(extra) is kind) == stays
    assert extra.weight is own.weight


def test_a_linear_with_parametrised_weights_stays(tiny: Tiny) -> None:
    model = tiny("llama").copy()
    model.module.base_model.layers[0].extra = nn.utils.parametrizations.weight_norm(nn.Linear(64, 32))
    canonicalize_(model)
    assert hasattr(model.module.base_model.layers[0].extra, "parametrizations")


def test_a_module_of_two_names_is_taken_apart_once() -> None:
    module = stock("mixtral")
    layers = module.base_model.layers
    layers[1].mlp.experts = layers[0].mlp.experts
    canonicalize_(LoadedModel(module, None, "causal_lm"))
    assert isinstance(layers[0].mlp.experts, Experts)
    assert layers[0].mlp.experts is layers[1].mlp.experts


@pytest.mark.parametrize(
    ("family", "like", "words"),
    [
        ("gpt_oss", "mixtral", "interleaves the gates of its experts"),
        ("gpt_oss", "llama", "has no linear mlp.down_proj in any of layers"),
        ("mixtral", "gpt_neox", "has no linear attention.dense in any of layers"),
    ],
)
def test_a_row_of_another_type_is_refused(family: str, like: str, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        canonicalize_(LoadedModel(stock(family), None, "causal_lm", row=FAMILIES[like]))


@pytest.mark.parametrize("fields", [["kv_lora_rank", "num_experts", "rms_norm_eps"], ["swiglu_alpha", "rms_norm_eps"]])
def test_nothing_is_said_to_be_like_what_is_not(fields: list[str]) -> None:
    assert "if it is built like" not in undescribed("mine", fields)


@pytest.mark.parametrize("criterion", [Obs(), Activation(), KFac()])
def test_an_expert_that_nobody_reads_goes_before_one_that_all_read(lonely: LoadedModel, criterion: Criterion) -> None:
    statistics = Statistics(lonely, {"text": [IDS]})
    block = lonely.block("layers.0")
    losses = {
        unit.consumer: criterion.curve(unit, lonely, statistics, (0, unit.count // 2)).losses[-1]
        for unit in block.units
        if unit.kind == "ffn"
    }
    assert losses["mlp.experts.3.down_proj"] == 0.0
    assert all(loss > 0 for name, loss in losses.items() if name != "mlp.experts.3.down_proj")


def test_types_whose_experts_stay_together_are_known() -> None:
    together = set()
    for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        folder = Path(inspect.getsourcefile(CONFIG_MAPPING[model_type]) or "").parent
        text = "".join(file.read_text(encoding="utf-8") for file in folder.glob("modeling_*.py"))
        apart = "@use_experts_implementation" in text and "has_post_expert_norm=True" not in text
        if "Experts(nn.Module)" in text and not apart and model_type not in REFUSED:
            together.add(model_type)
    assert {"dbrx", "llama4"} <= together <= FUSED_EXPERTS
