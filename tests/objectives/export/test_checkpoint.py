"""A compressed model comes back from its folder bit by bit, or is refused in one line that names the file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import objectives
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import ModelError, Unsupported
from objectives.export import checkpoint
from objectives.export.checkpoint import MANIFEST, load, save
from objectives.models import LoadedModel
from objectives.packing.int4 import Int4Linear, block_rows, unpack_codes
from objectives.packing.int8 import Int8WeightLinear
from objectives.packing.weighing import stored_bytes
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from tests.objectives.conftest import Tiny
from tests.objectives.families import CORE, OTHERS, TRIED, answer

WEIGHTS, CONFIG = "paretune.safetensors", "paretune_config.json"
Compress = Callable[..., LoadedModel]


@pytest.fixture(scope="module")
def compress(tiny: Tiny, statistics: Callable[[str], Statistics]) -> Compress:
    def compressed(family: str = "llama", ratio: float = 0.0, bits: Any = 16) -> LoadedModel:
        model = tiny(family).copy()
        Structured(ratio=ratio).prune_(model, statistics(family))
        RoundToNearest(bits=bits).quantize_(model, statistics(family), Cpu())
        return model

    return compressed


@pytest.fixture(scope="module")
def saved(compress: Compress, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "small"
    save(compress(ratio=0.5, bits=4), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A saved model: pruned, 4 bits."""
    return Path(shutil.copytree(saved, tmp_path / "small"))


def outputs(model: LoadedModel) -> list[Tensor]:
    """At prefill and, for decoders, at decode: both kernels of every linear."""
    ids = torch.arange(2, 122).view(1, -1)
    with torch.inference_mode():
        if model.head == "encoder":
            return [answer(model, ids[:, :-1]), answer(model, ids[:, :1])]
        first = model.module(**model.inputs(ids[:, :-1]))
        last = model.module(**model.inputs(ids[:, -1:]), past_key_values=first.past_key_values)
        return [first.logits, last.logits]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


def test_8_bit_weights_alone_come_back_as_such(
    tiny: Tiny, statistics: Callable[[str], Statistics], tmp_path: Path
) -> None:
    model = tiny("llama").copy()
    RoundToNearest(bits=8, scheme="weight_only").quantize_(model, statistics("llama"), Cpu())
    save(model, tmp_path / "small")
    loaded = load(tmp_path / "small")
    assert type(next(loaded.blocks()).linear("mlp.up_proj")) is Int8WeightLinear
    assert same(outputs(loaded), outputs(model))


@pytest.mark.parametrize("family", [*CORE, *OTHERS])
def test_8_bit_embeddings_make_the_model_smaller_and_come_back(
    tiny: Tiny, statistics: Callable[[str], Statistics], tmp_path: Path, family: str
) -> None:
    models = {}
    for embeddings in (16, 8):
        models[embeddings] = tiny(family).copy()
        RoundToNearest(bits=4, embeddings=embeddings, predicts=False).quantize_(
            models[embeddings], statistics(family), Cpu()
        )
    wide, narrow = models[16], models[8]
    table = wide.module.get_input_embeddings().weight
    head = wide.module.get_output_embeddings()
    copies = 2 if head is not None and head.weight is not table else 1
    saved = stored_bytes([wide.module]) - stored_bytes([narrow.module])
    assert 0 <= saved - copies * (table.nbytes - table.numel() - 4 * len(table)) <= 4  # Gemma: its factor as a tensor
    for one, other in zip(outputs(wide), outputs(narrow), strict=True):
        assert 0 < (one - other).norm() / one.norm() < 0.05
    bytes_ = save(narrow, tmp_path / "small")
    assert bytes_ < save(wide, tmp_path / "wide")
    assert same(outputs(load(tmp_path / "small")), outputs(narrow))


@pytest.mark.parametrize(("family", "ratio"), [*product(CORE, [0.0, 0.5]), *product(OTHERS, [0.5])])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_a_loaded_model_answers_bit_by_bit_as_the_saved_one(
    compress: Compress, tmp_path: Path, family: str, ratio: float, bits: int
) -> None:
    model = compress(family, ratio, bits)
    size = save(model, tmp_path / "small")
    loaded = load(tmp_path / "small")
    assert same(outputs(loaded), outputs(model))
    assert size == (tmp_path / "small" / WEIGHTS).stat().st_size
    assert (loaded.widths, loaded.notes, loaded.head) == (model.widths, model.notes, model.head)
    assert loaded.tokenizer("ab!").input_ids == model.tokenizer("ab!").input_ids
    stored, wanted = loaded.module.state_dict(), model.module.state_dict()
    assert {name: tensor.dtype for name, tensor in stored.items()} == {n: t.dtype for n, t in wanted.items()}


def behaviour(model: LoadedModel) -> list[Tensor]:
    """What it answers and, where it can write, what it writes."""
    prompt = torch.tensor([[5, 6, 7, 8]])
    if model.head == "encoder":
        return outputs(model)
    ids = model.module.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5, min_new_tokens=5, do_sample=False
    )
    return [*outputs(model), ids]


def test_every_family_behaves_the_same_in_a_fresh_process(compress: Compress, tmp_path: Path) -> None:
    wanted = {}
    for family in TRIED:
        model = compress(family, ratio=0.4, bits=4)
        save(model, tmp_path / "models" / family)
        wanted[family] = behaviour(model)
    code = (
        "import sys, torch, objectives; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from tests.objectives.export.test_checkpoint import behaviour\n"
        "folders = Path(sys.argv[1]).iterdir()\n"
        "torch.save({one.name: behaviour(objectives.load(str(one)).model) for one in folders}, sys.argv[2])\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "models"), str(tmp_path / "found")]
    subprocess.run(command, cwd=Path(__file__).parents[3], check=True)
    found = torch.load(tmp_path / "found")
    assert {family: same(found[family], wanted[family]) for family in TRIED} == dict.fromkeys(TRIED, True)


def test_a_loaded_model_generates(folder: Path) -> None:
    model = objectives.load(str(folder))
    prompt = torch.tensor([[5, 6, 7]])
    ids = model.module.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, eos_token_id=None)
    assert ids.shape == (1, 7)


def test_saving_what_was_loaded_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    save(load(folder), tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    before, after = (json.loads((parent / MANIFEST).read_text()) for parent in (folder, tmp_path / "again"))
    before["sha256"].pop(CONFIG)  # transformers adds the class that loaded it
    after["sha256"].pop(CONFIG)
    assert before == after


def test_the_manifest_keeps_widths_storage_and_the_facts_given(compress: Compress, tmp_path: Path) -> None:
    model = compress(ratio=0.5, bits=8)
    save(model, tmp_path / "deep" / "small", {"recipe": {"bits": 8}})
    manifest = json.loads((tmp_path / "deep" / "small" / MANIFEST).read_text())
    assert manifest["recipe"] == {"bits": 8}
    assert {
        (block, path): kept for block, own in manifest["widths"].items() for path, kept in own.items()
    } == model.widths
    assert manifest["linears"]["lm_head"] == {"stored": "bf16"}
    assert manifest["linears"]["model.layers.0.mlp.up_proj"] == {"stored": "int8"}


def test_a_tied_weight_is_written_once_and_stays_tied(compress: Compress, tmp_path: Path) -> None:
    save(compress(bits=8), tmp_path / "small")
    assert "lm_head.weight" not in load_file(tmp_path / "small" / WEIGHTS)
    module = load(tmp_path / "small").module
    assert module.lm_head.weight is module.get_input_embeddings().weight


def test_files_are_as_readable_as_each_other(folder: Path) -> None:
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {(folder / CONFIG).stat().st_mode & 0o777}


def test_4_bits_take_a_quarter_of_the_disk_where_blocks_dominate(tiny: Tiny, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=128, hidden_size=256, intermediate_size=768, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)  # fmt: skip
    dense = LoadedModel(LlamaForCausalLM(config).bfloat16().requires_grad_(False), tiny("llama").tokenizer, "causal_lm")
    blocks, files = {}, {}
    for bits in (16, 8, 4):
        model = dense.copy()
        RoundToNearest(bits=bits).quantize_(model, Statistics(model, {}), Cpu())
        files[bits] = save(model, tmp_path / str(bits))
        stored = load_file(tmp_path / str(bits) / WEIGHTS)
        blocks[bits] = sum(tensor.nbytes for name, tensor in stored.items() if ".layers." in name)
    assert blocks[4] <= 0.30 * blocks[16]
    assert blocks[8] <= 0.52 * blocks[16]
    assert files[4] <= 0.32 * files[16]
    assert sum(file.stat().st_size for file in (tmp_path / "4").iterdir()) < 0.34 * files[16]


# ---- refusals


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 7, 200, 0.5, 0.999])
def test_truncated_weights_are_refused(folder: Path, keep: float) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    assert refusal(folder).startswith(f"{folder / WEIGHTS}: not a readable safetensors file: ")


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert str(folder / WEIGHTS) in refusal(folder)


@pytest.mark.parametrize("change", ["less", "more", "shape", "dtype"])
def test_weights_that_do_not_match_the_manifest_are_refused(folder: Path, change: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = "model.layers.1.mlp.up_proj.codes"
    if change == "less":
        del tensors[name]
    elif change == "more":
        tensors[name := "model.layers.7.mlp.up_proj.codes"] = torch.zeros(1)
    elif change == "shape":
        tensors[name] = tensors[name][:-1].contiguous()
    else:
        tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, folder / WEIGHTS)
    assert refusal(folder) == f"{folder / WEIGHTS}: does not match {MANIFEST}; first differing tensor: {name}"


def test_a_foreign_folder_is_refused(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    foreign = tiny_folder("llama")
    assert refusal(foreign) == f"{foreign / MANIFEST} not found: {foreign} was not written by paretune export"
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", [CONFIG, "tokenizer.json"])
def test_a_folder_that_is_not_whole_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"x"', "{}", '{"format": 2}', '{"format": "1"}'])
def test_a_manifest_of_another_format_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    assert refusal(folder).startswith(str(folder / MANIFEST))


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    edit(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


UP = "model.layers.1.mlp.up_proj"
EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no widths": lambda m: m.pop("widths"),
    "no linears": lambda m: m.pop("linears"),
    "no head": lambda m: m.pop("head"),
    "no notes": lambda m: m.pop("notes"),
    "another head": lambda m: m.update(head="decoder"),
    "the other head": lambda m: m.update(head="encoder"),
    "widths as a list": lambda m: m.update(widths=[[1, 32]]),
    "a block too many": lambda m: m["widths"].update({"layers.9": {"mlp.down_proj": 32}}),
    "a block less": lambda m: m["widths"].pop("layers.1"),
    "unpruned": lambda m: m.update(widths={}),
    "no such unit": lambda m: m["widths"]["layers.0"].update({"mlp.up_proj": 3}),
    "a wider block": lambda m: m["widths"]["layers.1"].update({"mlp.down_proj": 128}),
    "wider than the model": lambda m: m["widths"]["layers.1"].update({"mlp.down_proj": 160}),
    "a negative width": lambda m: m["widths"]["layers.1"].update({"mlp.down_proj": -1}),
    "a width of text": lambda m: m["widths"]["layers.1"].update({"mlp.down_proj": "wide"}),
    "a linear less": lambda m: m["linears"].pop(UP),
    "a linear that is not there": lambda m: m["linears"].update({"model.layers.9.mlp.up_proj": {"stored": "int8"}}),
    "a linear that is none": lambda m: m["linears"].update({"model.norm": {"stored": "int8"}}),
    "stored otherwise": lambda m: m["linears"].update({UP: {"stored": "int8"}}),
    "stored in no known way": lambda m: m["linears"].update({UP: {"stored": "int3", "group_size": 64}}),
    "stored unsaid": lambda m: m["linears"].update({UP: {}}),
    "no group size": lambda m: m["linears"].update({UP: {"stored": "int4"}}),
    "another group size": lambda m: m["linears"].update({UP: {"stored": "int4", "group_size": 32}}),
    "group size 0": lambda m: m["linears"].update({UP: {"stored": "int4", "group_size": 0}}),
    "linears as a list": lambda m: m.update(linears=[UP]),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_manifest_is_refused(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    edited(folder, edit)
    assert MANIFEST in refusal(folder)


def test_files_hold_4_bits_in_a_layout_of_no_cpu(compress: Compress, tmp_path: Path) -> None:
    model = compress(bits=4)
    save(model, tmp_path / "small")
    tensors = load_file(tmp_path / "small" / WEIGHTS)
    for name, module in model.module.named_modules():
        if isinstance(module, Int4Linear):
            codes = unpack_codes(module.packed, block_rows() or 0).t()
            stored = tensors[f"{name}.codes"]
            assert torch.equal(stored & 15, codes[:, ::2])
            assert torch.equal(stored >> 4, codes[:, 1::2])


# ---- saving


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_nothing_half_written_stays_when_saving_fails(
    compress: Compress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_tensors: object, file: Path, **_: object) -> None:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(type(error)):
        save(compress(), tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(compress: Compress, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "mine").write_text("keep")
    with pytest.raises(OSError, match="small"):
        save(compress(), tmp_path / "small")
    assert [path.name for path in tmp_path.rglob("*")] == ["small", "mine"]


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    at = content.rindex(b"1e-") + 3 if name == CONFIG else len(content) - 1
    content[at] ^= 1
    (folder / name).write_bytes(content)
    assert refusal(folder).startswith(f"{folder / name}: changed since it was written: sha256 ")


def test_how_the_model_is_made_to_write_comes_back(compress: Compress, tmp_path: Path) -> None:
    model = compress("llama")
    model.module.generation_config.eos_token_id = [0, 5]
    model.module.generation_config.num_beams = 3
    save(model, tmp_path / "small")
    found = load(tmp_path / "small").module.generation_config
    assert (found.eos_token_id, found.num_beams) == ([0, 5], 3)


def test_a_model_on_a_gpu_is_not_written(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama").copy()
    model.module.to("meta")  # anywhere but on the CPU
    with pytest.raises(Unsupported, match="device=cpu writes them"):
        checkpoint.save(model, tmp_path / "winner")
    assert not (tmp_path / "winner").exists()
