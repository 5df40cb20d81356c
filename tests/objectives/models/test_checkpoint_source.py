"""A checkpoint is loaded whole or refused in one line that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from objectives.errors import ModelError, ObjectiveError, Unsupported
from objectives.models import Checkpoint, LoadedModel
from objectives.runtime.in_torch.runner import TorchRunner
from tests.conftest import SIZES, head_of
from tests.objectives.conftest import Tiny
from tests.objectives.families import answer, each_family

Folder = Callable[[str], Path]
FFN_FIELDS = {"intermediate_size", "hidden_dim", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim"}
"""What the configs of the families call the width of their FFN."""


@pytest.fixture
def copied(tiny_folder: Folder, tmp_path: Path) -> Folder:
    """A copy of a tiny checkpoint, to be damaged."""
    return lambda family: Path(shutil.copytree(tiny_folder(family), tmp_path / family))


def load(folder: Path, family: str = "llama") -> LoadedModel:
    return Checkpoint(path=str(folder), head=head_of(family)).load()


def refusal(folder: Path, family: str = "llama", error: type[ObjectiveError] = ModelError) -> str:
    with pytest.raises(error) as caught:
        load(folder, family)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@each_family
def test_a_checkpoint_is_loaded_as_it_was_saved(tiny: Tiny, tiny_folder: Folder, family: str) -> None:
    model, source = load(tiny_folder(family), family), tiny(family)
    stored, wanted = model.module.state_dict(), source.module.state_dict()
    assert stored.keys() == wanted.keys()
    assert all(torch.equal(stored[name], wanted[name]) for name in wanted)
    assert {tensor.dtype for tensor in model.module.parameters()} == {torch.bfloat16}
    assert not model.module.training
    assert not any(tensor.requires_grad for tensor in model.module.parameters())
    assert model.tokenizer("ab!").input_ids == source.tokenizer("ab!").input_ids
    ids = torch.tensor([[5, 9, 70, 33]])
    assert torch.equal(answer(model, ids), answer(source, ids))


@each_family
def test_blocks_are_read_off_the_config(tiny: Tiny, family: str) -> None:
    model, config = tiny(family), tiny(family).module.config
    blocks = list(model.blocks())
    layers = getattr(config, "num_hidden_groups", config.num_hidden_layers)
    assert len({block.name for block in blocks}) == len(blocks) == len(model.family.stacks) * layers
    grouped = (getattr(config, field, None) for field in ("num_kv_heads", "num_key_value_heads"))
    heads = next(filter(None, grouped), config.num_attention_heads)
    (width,) = [SIZES[family][field] for field in FFN_FIELDS & SIZES[family].keys()] or [4 * config.hidden_size]
    for index, block in enumerate(blocks):
        assert block.name.endswith(f".{index % layers}")
        *attentions, ffn = block.units
        assert (ffn.kind, ffn.count) == ("ffn", width)
        for attention in attentions:
            assert (attention.kind, attention.count) == ("attention", heads)
            assert attention.width == config.num_attention_heads // heads * model.head_dim
        assert model.block(block.name).module is block.module
        assert model.module.base_model.get_submodule(block.name) is block.module


@each_family
def test_every_linear_of_a_block_is_described(tiny: Tiny, family: str) -> None:
    for block in tiny(family).blocks():
        linears = [name for name, module in block.module.named_modules() if isinstance(module, torch.nn.Linear)]
        followers = {path for attention in block.stack.attentions for path in attention.followers}
        assert sorted(block.stack.block_linears) == sorted(set(linears) - followers)
        assert block.parameters == sum(block.linear(path).weight.numel() for path in linears)


def test_a_copy_is_independent_and_keeps_tied_weights_tied(tiny: Tiny) -> None:
    source = tiny("llama")
    copy = source.copy()
    assert copy.module.lm_head.weight is copy.module.get_input_embeddings().weight
    before = source.module.lm_head.weight.clone()
    copy.module.lm_head.weight.zero_()
    assert torch.equal(source.module.lm_head.weight, before)


@pytest.mark.parametrize("path", ["./nowhere", "/no/where", "a/b/c", "~/no/such/folder"])
def test_a_missing_folder_is_named(path: str) -> None:
    with pytest.raises(ModelError, match=r"^model\.path: directory .* not found \(working directory /") as caught:
        Checkpoint(path=path, head="causal_lm").load()
    assert path in str(caught.value)


def test_a_hub_id_that_is_not_cached_is_no_local_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="who/what is no local directory, and HF_HUB_OFFLINE is set"):
        Checkpoint(path="who/what", head="causal_lm").load()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(ModelError, match=r"could not be reached; set HF_HUB_OFFLINE=1"):
        Checkpoint(path="who/what", head="causal_lm").load()


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert refusal(tmp_path) == f"model.path: {tmp_path} has no config.json"


def test_pickled_weights_are_not_loaded(copied: Folder) -> None:
    folder = copied("llama")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert f"{folder} has no *.safetensors; pickled weights are not loaded" in refusal(folder)


def test_a_missing_tokenizer_is_refused(copied: Folder) -> None:
    folder = copied("llama")
    (folder / "tokenizer.json").unlink()
    assert f"{folder} has no tokenizer" in refusal(folder)


def test_a_garbled_tokenizer_is_refused(copied: Folder) -> None:
    folder = copied("llama")
    (folder / "tokenizer.json").write_text("{")
    assert refusal(folder).startswith(f"model.path: cannot load {folder}: ")


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_config_with_a_layer_too_many_is_refused(copied: Folder, family: str) -> None:
    folder = copied(family)
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    edit_config(folder, num_hidden_layers=layers + 1)
    message = refusal(folder, family)
    assert f"config.json has {layers + 1} blocks, its weights have {layers} (" in message


def test_a_config_of_another_width_is_refused(copied: Folder) -> None:
    folder = copied("llama")
    edit_config(folder, intermediate_size=96)
    assert str(folder) in refusal(folder)


def test_weights_without_a_tensor_are_refused(copied: Folder) -> None:
    folder = copied("llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert refusal(folder).endswith("has missing keys: model.layers.1.mlp.up_proj.weight")


def test_an_encoder_is_not_loaded_as_a_decoder(tiny_folder: Folder) -> None:
    with pytest.raises(ModelError, match=r"^model\.head: bert is an encoder here \(is_decoder false\): model=encoder"):
        Checkpoint(path=str(tiny_folder("bert")), head="causal_lm").load()


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_weights_are_refused(copied: Folder, keep: float) -> None:
    folder = copied("llama")
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    assert refusal(folder).startswith(f"model.path: cannot load {folder}: ")


def test_a_config_that_is_no_json_is_refused(copied: Folder) -> None:
    folder = copied("llama")
    (folder / "config.json").write_text("{")
    assert refusal(folder).startswith(f"model.path: cannot load {folder}: ")


def test_a_tokenizer_that_gives_ids_without_a_row_is_refused(copied: Folder, tiny: Tiny) -> None:
    import copy

    folder = copied("llama")
    tokenizer = copy.deepcopy(tiny("llama").tokenizer)
    tokenizer.add_tokens([f"<extra{i}>" for i in range(60)])
    tokenizer.save_pretrained(folder)
    tokens = len(tokenizer)
    assert tokens > load(folder).module.config.vocab_size  # no text has one of them
    file = folder / "tokenizer.json"
    words = json.loads(file.read_text())
    words["model"]["vocab"] |= {f"extra{i}": i for i in range(len(words["model"]["vocab"]), 130)}
    words["added_tokens"] = words["added_tokens"][:2]
    file.write_text(json.dumps(words))
    assert f"{folder}: the tokenizer gives ids up to 129, the embedding has 128 rows" in refusal(folder)


def test_a_state_space_model_is_refused_by_name(tmp_path: Path, tiny: Tiny) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    tiny("llama").tokenizer.save_pretrained(tmp_path)
    with pytest.raises(Unsupported, match=r"'mamba' is not taken: a state-space model"):
        Checkpoint(path=str(tmp_path), head="causal_lm").load()


def test_code_that_comes_with_a_checkpoint_never_runs(copied: Folder, tmp_path: Path) -> None:
    folder = copied("llama")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    edit_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    assert "auto_map, trust_remote_code" in refusal(folder, error=Unsupported)
    assert not (tmp_path / "ran").exists()


def test_the_hash_is_that_of_the_weights(copied: Folder) -> None:
    folder = copied("llama")
    checkpoint = Checkpoint(path=str(folder), head="causal_lm")
    before = checkpoint.weights_hash()
    assert len(before) == 64
    edit_config(folder, note="of no weight")
    assert checkpoint.weights_hash() == before
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert checkpoint.weights_hash() != before


@pytest.mark.parametrize("fields", [{"path": ""}, {"path": "x", "head": "decoder"}, {"path": "x", "rev": 1}])
def test_a_checkpoint_checks_its_settings(fields: dict[str, Any]) -> None:
    import pydantic

    with pytest.raises(pydantic.ValidationError):
        Checkpoint(**{"head": "causal_lm", **fields})


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_a_pooler_that_nothing_reads_may_be_missing_and_is_not_made_up(tmp_path: Path, tiny: Tiny, family: str) -> None:
    import transformers

    from tests.conftest import SIZES

    config = transformers.AutoConfig.for_model(family, **SIZES[family])
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    tiny("bert").tokenizer.save_pretrained(tmp_path)
    model = Checkpoint(path=str(tmp_path), head="encoder").load()
    assert not any("pooler" in name for name in model.module.state_dict())
    ids = torch.tensor([[5, 9, 70, 33]])
    again = Checkpoint(path=str(tmp_path), head="encoder").load()
    assert torch.equal(TorchRunner(model).encode(ids), TorchRunner(again).encode(ids))


def test_any_other_key_may_not_be_missing(copied: Folder) -> None:
    folder = copied("bert")
    weights = load_file(folder / "model.safetensors")
    del weights["embeddings.LayerNorm.bias"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "missing keys: embeddings.LayerNorm.bias" in refusal(folder, "bert")


@pytest.mark.parametrize(
    ("family", "key"),
    [("llama", "model.layers.0.self_attn.q_proj.bias"), ("bert", "encoder.layer.1.attention.self.extra.weight")],
)
def test_weights_of_a_block_that_nothing_would_read_are_refused(copied: Folder, family: str, key: str) -> None:
    folder = copied(family)
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, key: torch.ones(64)}, folder / "model.safetensors", {"format": "pt"})
    assert f"has unexpected keys: {key}" in refusal(folder, family)


@pytest.mark.parametrize(
    "key", ["classifier.weight", "cls.predictions.bias", "embeddings.position_ids", "layers.0.rotary_emb.inv_freq"]
)
def test_heads_of_other_tasks_and_computed_tables_are_left(copied: Folder, key: str) -> None:
    folder = copied("bert")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, key: torch.ones(4)}, folder / "model.safetensors", {"format": "pt"})
    load(folder, "bert")


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_tokenizer_without_padding_pads_with_what_it_has(copied: Folder, family: str) -> None:
    folder = copied(family)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "pad_token"}))
    tokenizer = load(folder, family).tokenizer
    batch = tokenizer(["a", "abc"], padding=True)
    assert {len(row) for row in batch["input_ids"]} == {3}
    assert max(map(max, batch["input_ids"])) < 128
