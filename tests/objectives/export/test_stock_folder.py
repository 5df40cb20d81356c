"""Folders in stock formats: engines that know nothing of ours load them and answer as the measured model."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from objectives.calibration.statistics import Statistics
from objectives.errors import ModelError, Unsupported
from objectives.export import card, formats, stock_folder
from objectives.export.engines import TABLE, VLLM, XLLAMACPP, Layout, Loader, loading
from objectives.export.export_check import differing, model_answers
from objectives.export.formats import hf
from objectives.export.relatives import expressible, layout_of, relative
from objectives.export.stock_check import Outcome, exact, look
from objectives.models import LoadedModel
from objectives.models.canonical import canonicalize_
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.runtime.formats.deci import deci_config
from objectives.runtime.in_torch.runner import TorchRunner
from tests.conftest import VOCABULARY
from tests.objectives.runtimes import compressed, rounded
from tests.objectives.tokenizers import by_bytes

PROMPTS = torch.randint(2, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(7))
FACTS: dict[str, Any] = {
    "model": {"path": "somebody/model"}, "study": "s", "trial": 5, "runtime": "torch", "settings": {"bits": 4},
    "methods": {"pruning": {"_target_": "objectives.pruning.structured.Structured"}},
    "workload": {"_target_": "x.Generation", "batch_size": 2}, "machine": {"device_name": "a CPU", "cores": "2"},
    "metrics": {"throughput": 31.5, "accuracy": 0.5, "accuracy_stderr": 0.01, "speedup": 2.0, "speedup.low": 1.94,
    "speedup.high": 2.06, "speedup.error": 0.03},
}  # fmt: skip
HAS_MINE = "import sys; assert not [n for n in sys.modules if n.split('.')[0] in ('objectives', 'search', 'paretune')]"


def packed(model: LoadedModel, bits: int = 16, **pruning: Any) -> LoadedModel:
    cut = model.copy()
    if pruning:
        settings = {"ratio": 0.0, "criterion": Magnitude(), "reconstruction": "none", "allocation": "uniform"}
        Structured(**{**settings, **pruning}).prune_(cut, Statistics(cut, {"text": [PROMPTS]}))
    return compressed(cut, Statistics(cut, {}), rounded(bits, group_size=32, zero="middle"))


def uneven(model: LoadedModel) -> LoadedModel:
    """Every block has an FFN of its own width; heads stay."""
    for place, block in enumerate(model.blocks()):
        for path, side in (("mlp.gate_proj", 0), ("mlp.up_proj", 0), ("mlp.down_proj", 1)):
            linear, kept = block.linear(path), 128 - 32 * place
            linear.weight = torch.nn.Parameter(linear.weight.narrow(side, 0, kept).clone(), requires_grad=False)
            linear.out_features, linear.in_features = linear.weight.shape
    return model


def in_bf16(module: Any) -> Any:
    """A module whose parameters are in bf16, and not the frequencies of its positions."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    return module.eval().requires_grad_(False)


def script(folder: Path, text: str, python: Path | None = Path(sys.executable), **more: Any) -> Loader:
    """An engine that is a few lines of Python."""
    (folder / "engine.py").write_text(
        f"import json, os, sys\n{HAS_MINE}\nasked = json.load(open(sys.argv[1]))\n{text}\n"
    )

    class Fake(Loader):
        path = folder / "engine.py"

    return Fake("fake", "engine.py", lambda: python, "install it", **more)


def answering(shift: float | str, lengths: int = 0) -> str:
    """Lines that write token 3 again and again, with log-probabilities that are kept beside the model."""
    return (
        "rows = json.load(open(asked['model'] + '/logprobs.json'))\n"
        "json.dump({'engine': 'fake 1', 'tokens': [[3] * asked['count'] for _ in asked['prompts']],"
        f" 'logprobs': [[value + {shift} for value in row] for row in rows],"
        f" 'lengths': [len(text) + {lengths} for text in asked['texts']]}}, open(sys.argv[2], 'w'))"
    )


def keep_logprobs(model: LoadedModel, folder: Path) -> None:
    ids = torch.cat([PROMPTS, torch.full((2, 16), 3)], dim=1)[:, :-1]
    logits = exact(model)(input_ids=ids).logits[:, PROMPTS.shape[1] - 1 :]
    (folder / "logprobs.json").write_text(json.dumps(logits.log_softmax(-1)[..., 3].tolist()))


def test_formats_are_found_by_their_files() -> None:
    assert formats.names() == ("engine", "compressed-tensors", "gguf", "gptq", "hf")
    for name in formats.names()[1:]:
        found = formats.load(name)
        rows = {row.engine for row in TABLE if row.format == name}
        assert {each.engine for each in found.LOADERS} == set(found.COMMANDS) <= rows
        assert all(each.path.is_file() for each in found.LOADERS)
    assert {row.format for row in TABLE} <= set(formats.names())


def test_the_table_is_asked_by_layout_bits_and_format() -> None:
    assert {row.engine for row in loading(Layout.FREE)} == {"llama.cpp"}
    assert {row.engine for row in loading(Layout.UNIFORM, {8, 4}, "compressed-tensors")} == {"vLLM", "SGLang"}
    assert not loading(Layout.UNIFORM, {8}, "gptq")


def test_a_pruned_checkpoint_is_loaded_by_transformers_alone(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "LOADERS", hf.LOADERS[:1])
    model = packed(tiny("llama"), ffn_ratio=0.25, attention_ratio=0.0)
    written = stock_folder.save(TorchRunner(model), model, "hf", tmp_path / "out", FACTS, PROMPTS)
    assert written.lines[0].startswith(f"loaded by transformers {transformers.__version__}, answers equal: ")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["intermediate_size"] == 96
    text = (tmp_path / "out" / card.CARD).read_text()
    assert written.lines[0] in text
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "somebody/model"
    assert "| accuracy | 0.5 | ± 0.0196 | - |" in text
    assert "| speedup | 2 | 1.94 to 2.06 | - |" in text
    assert "Machine: device name a CPU, cores 2." in text


@pytest.mark.parametrize("bits", [4, 16])
def test_a_gguf_file_is_loaded_by_llama_cpp_alone(bits: int, tmp_path: Path) -> None:
    tokenizer = by_bytes("smollm")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    module = in_bf16(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)))  # type: ignore[arg-type]
    model = packed(canonicalize_(LoadedModel(module, tokenizer, "causal_lm")), bits)
    prompts = torch.tensor([tokenizer(text).input_ids[:8] for text in ("Hello, world! It's 2026", "def f(x): x")])
    written = stock_folder.save(TorchRunner(model), model, "gguf", tmp_path / "out", FACTS, prompts)
    assert written.lines[0].startswith("loaded by llama.cpp (xllamacpp ")
    assert "answers equal" in written.lines[0]


def test_an_engine_that_answers_otherwise_is_found_out(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model = packed(tiny("llama"))
    runner = TorchRunner(model)
    keep_logprobs(model, tmp_path)
    for shift, lengths, outcome in ((0.0, 0, Outcome.EQUAL), (0.5, 0, Outcome.OTHERWISE), (0.0, 1, Outcome.SPLITS)):
        loader = script(tmp_path, answering(shift, lengths))
        seen = look(runner, model, loader, tmp_path, PROMPTS)
        assert seen.outcome is outcome, seen.line
        assert seen.nats == pytest.approx(shift, abs=1e-5)


@pytest.mark.parametrize(
    ("shift", "outcome", "needed", "told"),
    [
        ("(os.environ.get('ROUGH') != '0') * .5", Outcome.EQUAL, "ROUGH=0", "equal with ROUGH=0 (without it, 0.500"),
        ("0.5", Outcome.OTHERWISE, "", "NOT equal"),
        ("(os.environ.get('ROUGH') == '0') * .5", Outcome.EQUAL, "", "answers equal: "),
    ],
    ids=["helps", "does not help", "not needed"],
)
def test_an_engine_is_asked_again_as_it_rounds_less_where_it_answers_otherwise(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, shift: str, outcome: Outcome, needed: str, told: str
) -> None:
    model = packed(tiny("llama"))
    keep_logprobs(model, tmp_path)
    loader = script(tmp_path, answering(shift), exact={"ROUGH": "0"})
    seen = look(TorchRunner(model), model, loader, tmp_path, PROMPTS)
    assert (seen.outcome, seen.exact) == (outcome, needed)
    assert told in seen.line


def test_an_engine_that_fails_or_is_not_there_is_told(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model = packed(tiny("llama"))
    failing = script(tmp_path, "sys.exit('no such architecture')")
    assert (
        look(TorchRunner(model), model, failing, tmp_path, PROMPTS).line == "not loaded by fake: no such architecture"
    )
    absent = script(tmp_path, "", python=None)
    assert look(TorchRunner(model), model, absent, tmp_path, PROMPTS).line == "not tried here: fake: install it"


def test_nothing_is_left_where_an_engine_answers_otherwise(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = packed(tiny("llama"))
    keep_logprobs(model, tmp_path)
    wrong = script(tmp_path, answering(0.5).replace("asked['model']", repr(str(tmp_path))))
    monkeypatch.setattr(wrong.__class__, "engine", "transformers", raising=False)
    monkeypatch.setattr(hf, "LOADERS", (wrong,))
    object.__setattr__(wrong, "engine", "transformers")
    with pytest.raises(ModelError, match="it is not left behind: loaded by fake 1, answers NOT equal"):
        stock_folder.save(TorchRunner(model), model, "hf", tmp_path / "out", FACTS, PROMPTS)
    assert not (tmp_path / "out").exists()


def test_without_an_engine_nothing_is_promised(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = script(tmp_path, "", python=None)
    object.__setattr__(absent, "engine", "vLLM")
    monkeypatch.setattr(formats.load("gptq"), "LOADERS", (absent,))
    model = packed(tiny("llama"), 4)
    written = stock_folder.save(TorchRunner(model), model, "gptq", tmp_path / "out", FACTS, PROMPTS)
    assert written.lines == (
        "not tried here: vLLM: install it", "no stock engine was seen to load it here, so nothing is promised",
    )  # fmt: skip
    assert "SGLang: format=gptq" in (tmp_path / "out" / card.CARD).read_text()


def test_heads_that_llama_has_no_config_for_are_written_as_mistral() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=0,
    )  # fmt: skip
    module = in_bf16(LlamaForCausalLM(config))
    model = packed(canonicalize_(LoadedModel(module, None, "causal_lm")), 4, attention_ratio=0.25, ffn_ratio=0.0)
    found = expressible(model)
    assert type(found.module) is transformers.MistralForCausalLM
    assert (found.module.config.num_attention_heads, found.module.config.sliding_window) == (3, None)
    assert differing(model_answers(found, PROMPTS), model_answers(model, PROMPTS)) is None


def test_another_class_is_refused_where_it_computes_otherwise(tiny: Callable[[str], LoadedModel]) -> None:
    assert relative(packed(tiny("granite")), "llama") is None  # the same tensors, scaled residuals
    assert relative(packed(tiny("qwen3")), "llama") is None  # other tensors
    assert relative(packed(tiny("mistral")), "llama") is not None


def test_blocks_that_differ_get_a_part_of_the_config_each(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model = packed(uneven(tiny("llama").copy()))
    assert layout_of(model) is Layout.DECI
    hf.write(model, model.tokenizer, tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    assert [block["ffn"]["intermediate_size"] for block in said["block_configs"]] == [128, 96, 64]
    assert {block["attention"]["n_heads_in_group"] for block in said["block_configs"]} == {2}
    file, _, name = said["auto_map"]["AutoConfig"].partition(".")
    read = runpy.run_path(str(tmp_path / f"{file}.py"))[name].from_pretrained(tmp_path)
    assert [block.ffn.intermediate_size for block in read.block_configs] == [128, 96, 64]
    assert not read.block_configs[0].attention.no_op
    assert [layer.intermediate_size for layer in read.per_layer_config] == [128, 96, 64]
    with pytest.raises(Unsupported, match=r"pruning\.layout=uniform, or format=gguf"):
        expressible(model)


def test_what_a_config_per_block_has_no_place_for_is_refused(
    tiny: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    model = packed(uneven(tiny("qwen2").copy()))
    assert relative(model, "llama") is not None  # it computes as a Llama does, with biases
    with pytest.raises(Unsupported, match=r"no place for model\.layers\.0\.self_attn\.\w_proj\.bias"):
        hf.write(model, model.tokenizer, tmp_path)


def test_rows_without_a_token_are_left_out(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model = packed(tiny("llama"))
    keep_logprobs(model, tmp_path)
    empty = answering(0.0).replace("for _ in asked['prompts']]", "for _ in asked['prompts'][1:]] + [[]]")
    seen = look(
        TorchRunner(model),
        model,
        script(tmp_path, empty.replace("in row] for row in rows]", "in row] for row in rows[:-1]] + [[]]")),
        tmp_path,
        PROMPTS,
    )
    assert (seen.outcome, seen.nats) == (Outcome.EQUAL, pytest.approx(0.0, abs=1e-5))
    nothing = (
        answering(0.0)
        .replace("[[3] * asked['count'] for", "[[] for")
        .replace("[[value + 0.0 for value in row] for row in rows]", "[[] for row in rows]")
    )
    told = look(TorchRunner(model), model, script(tmp_path, nothing), tmp_path, PROMPTS)
    assert told.line == "not loaded by fake 1: it wrote no token"


def test_the_command_of_a_card_is_the_one_that_answered_equally(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = packed(tiny("llama"))
    keep_logprobs(model, tmp_path)
    rough = answering("(os.environ.get('ROUGH') != '0') * .5").replace("asked['model']", repr(str(tmp_path)))
    loader = script(tmp_path, rough, exact={"ROUGH": "0"})
    object.__setattr__(loader, "engine", "vLLM")
    monkeypatch.setattr(hf, "LOADERS", (loader,))
    stock_folder.save(TorchRunner(model), model, "hf", tmp_path / "out", FACTS, PROMPTS)
    assert "ROUGH=0 vllm serve ." in (tmp_path / "out" / card.CARD).read_text()


def test_an_interpreter_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_VLLM_PYTHON", "/nowhere/python")
    with pytest.raises(Unsupported, match="PARETUNE_VLLM_PYTHON: /nowhere/python is no file"):
        VLLM.python()


def test_multiples_of_256_are_written_as_every_engine_reads_them(tiny: Callable[[str], LoadedModel]) -> None:
    model = packed(uneven(tiny("llama").copy()))
    block = next(model.blocks())
    block.linear("mlp.down_proj").in_features = 512
    assert deci_config(model)["block_configs"][0]["ffn"]["ffn_mult"] == 12.0  # of hidden size 64: 2 / 3 x 12 x 64


def test_free_shapes_and_other_heads_are_refused(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model = packed(tiny("llama"), attention_ratio=0.2, ffn_ratio=0.2, allocation="global", multiple_of=8)
    assert layout_of(model) is Layout.FREE
    with pytest.raises(Unsupported, match=r"pruning\.layout=uniform, or format=gguf"):
        hf.write(model, model.tokenizer, tmp_path)
    encoder = packed(tiny("bert"))
    with pytest.raises(Unsupported, match=r"format=hf: stock formats are written of decoders .* this one is encoder"):
        stock_folder.save(TorchRunner(encoder), encoder, "hf", tmp_path / "out", FACTS, PROMPTS)


def test_exact_arithmetic_has_the_stored_weights(tiny: Callable[[str], LoadedModel]) -> None:
    dense = tiny("llama")
    wanted = dense.copy().module.float()(input_ids=PROMPTS).logits
    assert torch.allclose(exact(packed(dense))(input_ids=PROMPTS).logits, wanted, atol=1e-5)
    four = exact(packed(dense, 4))(input_ids=PROMPTS).logits
    assert not torch.allclose(four, wanted, atol=1e-2)


def test_the_loader_of_llama_cpp_finds_its_interpreter() -> None:
    assert XLLAMACPP.python() == Path(sys.executable)
