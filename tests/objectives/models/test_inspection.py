"""What a checkpoint's files say is known before a weight is read, and what cannot be right is one line."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from objectives.errors import ObjectiveError
from objectives.models.inspection import Inspection, folders, inspect
from objectives.models.inspection.config import Config
from objectives.models.inspection.library import config_class, model_types
from objectives.models.inspection.limits import positions
from objectives.models.inspection.spans import Side
from objectives.tasks.partial_scores import geometric_mean
from objectives.types import Head
from objectives.workloads.generation import Generation
from objectives.workloads.translation import Translation

Write = Callable[..., Path]
WORDS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, **{f"w{i}": i for i in range(4, 60)}}
FIELDS: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
BLOCKS = {"gpt2": "h", "bert": "encoder.layer", "opt": "decoder.layers", "llama": "model.layers"}


def tensors(names: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """A safetensors file of zeros."""
    header, end = {}, 0
    for name, (dtype, shape) in names.items():
        size = {"BF16": 2, "F32": 4, "I32": 4, "I8": 1, "F8_E4M3": 1}[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def plain_weights(path: str, blocks: int, rows: int = 64, width: int = 32) -> dict[str, tuple[str, tuple[int, ...]]]:
    names = [f"{path}.{block}.{part}.weight" for block in range(blocks) for part in ("up", "down", "norm")]
    return {"embed_tokens.weight": ("BF16", (rows, width)), **dict.fromkeys(names, ("BF16", (2, 2)))}


def written(beside: Path, model_type: str, blocks: int = 2, **fields: Any) -> Path:
    """A folder with the files of a checkpoint, made without torch."""
    folder = beside / model_type
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **FIELDS, **fields}))
    weights = plain_weights(BLOCKS.get(model_type, "layers"), blocks)
    (folder / "model.safetensors").write_bytes(tensors(weights))
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": {"vocab": WORDS}}))
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(written, tmp_path)


def refusal(folder: Path | str, head: Head = "causal_lm") -> str:
    with pytest.raises(ObjectiveError) as caught:
        inspect(str(folder), head)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def accepted(folder: Path, head: Head = "causal_lm") -> Inspection:
    found = inspect(str(folder), head)
    assert found is not None
    return found


# ---- the library's own tables


def test_every_config_class_of_transformers_is_read() -> None:
    types = model_types()
    assert len(types) > 300
    assert config_class("gpt-sw3") == config_class("gpt2")
    unread = [name for name in types if config_class(name) is None]
    assert len(unread) < 0.02 * len(types), unread


def test_what_is_read_is_what_transformers_builds() -> None:
    from transformers import AutoConfig

    for name in ("llama", "gpt2", "bert", "roberta", "t5", "opt", "bart", "qwen2", "falcon", "bloom", "distilbert"):
        built, read = AutoConfig.for_model(name), Config({}, name, config_class(name))
        for field in ("max_position_embeddings", "num_hidden_layers", "vocab_size", "is_encoder_decoder"):
            if read.get(field) is not None:
                assert getattr(built, field) == read.get(field), (name, field)


# ---- the head


@pytest.mark.parametrize(
    "model_type",
    [
        "bert",
        "roberta",
        "electra",
        "xlm-roberta",
        "camembert",
        "distilbert",
        "albert",
        "deberta-v2",
        "mpnet",
        "modernbert",
    ],
)
def test_an_encoder_is_no_decoder(write: Write, model_type: str) -> None:
    message = refusal(write(model_type))
    assert message.startswith(f"model.head: {model_type} is an encoder here (")
    assert message.endswith("): model=encoder, got causal_lm")


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta"])
def test_an_encoder_that_was_made_a_decoder_is_one(write: Write, model_type: str) -> None:
    accepted(write(model_type, is_decoder=True))


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "gpt_neox", "bloom"])
def test_a_decoder_may_give_embeddings_but_is_no_encoder_decoder(write: Write, model_type: str) -> None:
    folder = write(model_type)
    accepted(folder)
    accepted(folder, "encoder")
    assert "is a decoder here" in refusal(folder, "seq2seq")


@pytest.mark.parametrize("model_type", ["t5", "bart", "marian", "pegasus", "mt5"])
@pytest.mark.parametrize("head", ["causal_lm", "encoder"])
def test_an_encoder_decoder_is_only_that(write: Write, model_type: str, head: Head) -> None:
    assert "is an encoder-decoder here (is_encoder_decoder true): model=seq2seq" in refusal(write(model_type), head)


@pytest.mark.parametrize(("model_type", "name"), [("llama", "Llama"), ("bart", "Bart")])
def test_a_classifier_that_is_no_encoder_is_refused_for_good(write: Write, model_type: str, name: str) -> None:
    folder = write(model_type, architectures=[f"{name}ForSequenceClassification"])
    said = refusal(folder, "classifier")
    assert said.startswith(f"model.head: the checkpoint is a {name}ForSequenceClassification, and {model_type} is a")
    assert "classes and spans are scored of encoders alone" in said
    assert "model=" not in said


@pytest.mark.parametrize("model_type", ["t5", "mt5", "umt5"])
def test_both_halves_need_the_switch_that_says_so(write: Write, model_type: str) -> None:
    folder = write(model_type, is_encoder_decoder=False)
    assert "config.json says is_encoder_decoder false, and" in refusal(folder, "seq2seq")


@pytest.mark.parametrize("name", ["LlamaForSequenceClassification", "LlamaForTokenClassification", "LlamaRewardModel"])
def test_a_decoder_that_was_trained_to_classify_writes_no_text(write: Write, name: str) -> None:
    folder = write("llama", architectures=[name])
    assert f"the checkpoint is a {name}" in refusal(folder)
    accepted(folder, "encoder")


# ---- what it is


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, "(gptq, 4 bits)"),
        ({"quant_method": "awq", "w_bit": 4}, "(awq, 4 bits)"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "(bitsandbytes, 8 bits)"),
        ({"quant_method": "fp8"}, "(fp8, 8 bits)"),
        ({"quant_method": "mxfp4"}, "(mxfp4, 4 bits)"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 8}}}},
         "(compressed-tensors, 8 bits)"),
        ({"quant_method": "never_heard_of"}, "(never_heard_of)"),
    ],
)  # fmt: skip
def test_what_is_quantised_already_is_refused(write: Write, settings: dict[str, Any], words: str) -> None:
    folder = write("llama", quantization_config=settings)
    wanted = f"model.path: {folder} is quantised already {words}; give the full-precision checkpoint"
    assert refusal(folder) == wanted


@pytest.mark.parametrize("name", ["quantize_config.json", "quantization_config.json", "quant_config.json"])
def test_so_is_what_says_so_in_a_file_beside_it(write: Write, name: str) -> None:
    folder = write("llama")
    (folder / name).write_text(json.dumps({"bits": 3}))
    assert "is quantised already" in refusal(folder)
    assert "3 bits" in refusal(folder)


@pytest.mark.parametrize("dtype", ["I32", "I8", "F8_E4M3"])
def test_so_are_weights_that_are_no_floats(write: Write, dtype: str) -> None:
    folder = write("llama")
    weights = {**plain_weights("model.layers", 2), "model.layers.0.up.qweight": (dtype, (4, 4))}
    (folder / "model.safetensors").write_bytes(tensors(weights))
    assert f"is stored as {dtype}" in refusal(folder)


def test_an_empty_quantisation_config_is_none(write: Write) -> None:
    accepted(write("llama", quantization_config=None))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"auto_map": {"AutoModel": "x.M"}}, ("auto_map, trust_remote_code", "never run")),
        ({}, ("knows no model type 'lama'", "nearest: llama")),
    ],
)
def test_an_unknown_architecture_is_told_what_is_known(write: Write, fields: Any, words: tuple[str, ...]) -> None:
    message = refusal(write("lama", **fields))
    assert all(word in message for word in words)


def test_code_beside_a_known_architecture_is_not_needed(write: Write) -> None:
    accepted(write("llama", auto_map={"AutoModelForCausalLM": "modeling_llama.M"}))


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [("gemma3", {"text_config": {}, "vision_config": {}}), ("llava", {"text_config": {"model_type": "llama"}}),
     ("vit", {}), ("wav2vec2", {})],
)  # fmt: skip
def test_what_is_no_text_model_is_refused_by_name(write: Write, model_type: str, fields: dict[str, Any]) -> None:
    assert model_type in refusal(write(model_type, **fields), "encoder")


# ---- the folder


@pytest.mark.parametrize("path", ["./nowhere", "/no/where", "a/b/c", "~/no/such/folder", "~nobody/x"])
def test_a_missing_folder_is_named_with_the_working_directory(path: str) -> None:
    assert refusal(path).startswith(f"model.path: directory {path} not found (working directory {Path.cwd()})")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_is_no_folder(write: Write, name: str) -> None:
    file = write("llama") / name
    assert refusal(file).startswith(f"model.path: {file} is a file; give the folder")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "is empty"),
        (("adapter_config.json", "adapter_model.safetensors"), "merge_and_unload"),
        (("adapter_config.json", "config.json", "model.safetensors"), "merge it first"),
        (("model-Q4_K_M.gguf",), "GGUF"),
        (("config.json", "pytorch_model.bin"), "pickled weights are not loaded"),
        (("config.json", "model.onnx"), "ONNX"),
        (("config.json", "tf_model.h5"), "TensorFlow"),
        (("config.json", "flax_model.msgpack"), "Flax"),
        (("model_index.json",), "diffusers"),
        (("paretune.json", "config.json", "model.safetensors"), "is a winner of paretune"),
        (("notes.txt",), "has no config.json"),
    ],
)
def test_a_folder_of_something_else_is_named(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    message = refusal(tmp_path)
    assert words in message
    assert message.startswith(f"model.path: {tmp_path} ")


def test_a_folder_of_a_trainer_is_told_its_checkpoints(write: Write) -> None:
    folder = write("llama")
    inside = Path(shutil.copytree(folder, folder / "checkpoint-500"))
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == f"model.path: {folder} has no *.safetensors; {inside} has some"


@pytest.mark.parametrize("text", ["{", "[]", '"llama"', "", '{"a": 1}'])
def test_a_config_that_is_none_is_refused(write: Write, text: str) -> None:
    folder = write("llama")
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder)


NETWORK = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", *(
    spelt for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for spelt in (name, name.upper())
))  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Addresses that were to be connected to, none of which answers; the environment names no other hub."""
    for variable in NETWORK:
        monkeypatch.delenv(variable, raising=False)
    found: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> None:
        assert timeout <= folders.HUB_SECONDS
        found.append(address)
        raise OSError("nobody there")

    monkeypatch.setattr(folders.socket, "create_connection", refuse)
    return found


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_hub_id_is_refused_without_asking_anybody_where_offline_was_asked(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    message = refusal("who/what")
    assert f"{variable} is set" in message
    assert str(folders.hub_cache()) in message
    assert asked == []


@pytest.mark.parametrize("hub_id", ["who/what", "gpt2", "bert-base-uncased"])
def test_a_hub_out_of_reach_is_asked_once(asked: list[tuple[str, int]], hub_id: str) -> None:
    assert "could not be reached" in refusal(hub_id)
    assert asked == [("huggingface.co", 443)]


def test_a_hub_that_never_answers_is_not_waited_for(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = threading.Event()

    def wait(*_: object, **__: object) -> None:
        late.wait()
        raise OSError("too late")

    monkeypatch.setattr(folders.socket, "create_connection", wait)
    assert not folders.hub_answers(0.05)
    late.set()


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({"HF_ENDPOINT": "http://mirror:81"}, ("mirror", 81)),
        ({"HF_ENDPOINT": "mirror.example"}, ("mirror.example", 80)),
        ({"https_proxy": "http://proxy:3128"}, ("proxy", 3128)),
        ({"ALL_PROXY": "proxy:3128", "HTTPS_PROXY": "http://other:1"}, ("other", 1)),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "huggingface.co"}, ("huggingface.co", 443)),
    ],
)
def test_the_hub_is_looked_for_where_the_environment_says(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], address: tuple[str, int]
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert "could not be reached" in refusal("who/what")
    assert asked == [address]


@pytest.mark.parametrize(
    ("name", "value"), [("HF_ENDPOINT", "http://hub:99999"), ("HF_ENDPOINT", "http://"), ("https_proxy", "proxy:x")]
)
def test_an_address_that_is_none_is_refused_by_its_variable(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert refusal("who/what").startswith(f"{name}: a URL as https://host:443 expected, got {value!r}")
    assert asked == []


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_a_cache_of_a_user_who_does_not_exist_holds_nothing(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "~nobody-of-that-name/cache")
    assert folders.cached_folder("who/what", None) is None


def test_what_the_hubs_cache_holds_is_used(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "hub" / "models--who--what"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text("abc\n")
    shutil.copytree(write("gpt2"), base / "snapshots" / "abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    accepted(Path("who/what"))
    assert "is an encoder" not in refusal("who/other")


# ---- the weights


@pytest.mark.parametrize("model_type", ["gpt2", "bert", "opt", "llama"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_blocks_are_counted_in_both_directions(write: Write, model_type: str, blocks: int) -> None:
    folder = write(model_type, blocks)
    message = refusal(folder, "encoder" if model_type == "bert" else "causal_lm")
    assert f"config.json has 2 blocks, its weights have {blocks} ({BLOCKS[model_type]}.0 to " in message


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_so_are_those_of_either_half(write: Write, side: str) -> None:
    folder = write("t5", num_layers=2, num_decoder_layers=2)
    blocks = {"encoder": 2, "decoder": 2, side: 4}
    weights = {**plain_weights("encoder.block", blocks["encoder"]), **plain_weights("decoder.block", blocks["decoder"])}
    (folder / "model.safetensors").write_bytes(tensors(weights))
    assert f"2 {side} blocks, its weights have 4" in refusal(folder, "seq2seq")


def test_blocks_that_repeat_and_blocks_beside_the_model_are_no_difference(write: Write) -> None:
    folder = write("albert", num_hidden_layers=12, num_hidden_groups=1)
    weights = plain_weights("albert.encoder.albert_layer_groups", 1)
    (folder / "model.safetensors").write_bytes(tensors(weights))
    accepted(folder, "encoder")
    accepted(write("llama", 3, num_nextn_predict_layers=1))


@pytest.mark.parametrize(
    ("model_type", "field"),
    [("rembert", "input_embedding_size"), ("electra", "embedding_size"), ("opt", "word_embed_proj_dim")],
)
def test_embeddings_may_be_narrower_than_the_model_where_the_config_says_so(
    write: Write, model_type: str, field: str
) -> None:
    head: Head = "causal_lm" if model_type == "opt" else "encoder"
    accepted(write(model_type, hidden_size=64, **{field: 32}), head)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 0), ("num_hidden_layers", -1), ("num_hidden_layers", "2"), ("num_hidden_layers", 2.0),
        ("max_position_embeddings", 0), ("max_position_embeddings", "2048"), ("vocab_size", True),
        ("num_attention_heads", 0),
    ],
)  # fmt: skip
def test_counts_are_positive_whole_numbers(write: Write, field: str, value: object) -> None:
    assert f"has {field} {value!r}, a whole number above 0 expected" in refusal(write("llama", **{field: value}))


def test_heads_are_shared_evenly(write: Write) -> None:
    assert "which 3 num_key_value_heads do not divide" in refusal(write("llama", num_key_value_heads=3))


@pytest.mark.parametrize(("text", "words"), [("{", "is no JSON"), ("[]", "holds no mapping")])
def test_a_damaged_generation_config_is_refused(write: Write, text: str, words: str) -> None:
    folder = write("llama")
    (folder / "generation_config.json").write_text(text)
    assert f"generation_config.json {words}" in refusal(folder)


def test_a_pointer_of_git_lfs_is_no_damage(write: Write) -> None:
    folder = write("llama")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    assert "is a pointer of git-lfs and no weights: run git lfs pull" in refusal(folder)


@pytest.mark.parametrize(("rows", "width", "words"), [(60, 32, "vocab_size of 64"), (64, 48, "hidden_size of 32")])
def test_an_embedding_of_another_shape_is_refused(write: Write, rows: int, width: int, words: str) -> None:
    folder = write("llama")
    (folder / "model.safetensors").write_bytes(tensors(plain_weights("model.layers", 2, rows, width)))
    assert words in refusal(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_damaged_files_are_told_by_their_headers(write: Write, keep: float) -> None:
    file = write("llama") / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    assert "model.safetensors is damaged: " in refusal(file.parent)


def test_shards_are_read_and_missed(write: Write) -> None:
    folder = write("llama")
    (folder / "model.safetensors").unlink()
    names = [f"model-{number}-of-2.safetensors" for number in (1, 2)]
    for block, name in enumerate(names):
        (folder / name).write_bytes(tensors({f"model.layers.{block}.up.weight": ("BF16", (2, 2))}))
    assert "neither model.safetensors nor" in refusal(folder)
    mapped = {f"model.layers.{block}.up.weight": name for block, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))
    accepted(folder)
    (folder / names[1]).unlink()
    assert f"lacks {names[1]} of 2 shards" in refusal(folder)


# ---- the tokenizer


def tokenizer(folder: Path, words: dict[str, int], **more: Any) -> None:
    added = [{"id": id_, "content": token} for token, id_ in more.pop("added", {}).items()]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {"vocab": words}, **more}))


def test_a_vocabulary_beyond_the_embedding_is_refused(write: Write) -> None:
    folder = write("llama")
    tokenizer(folder, {**WORDS, "last": 64})
    assert "the tokenizer gives ids up to 64, the embedding has 64 rows" in refusal(folder)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"added_tokens": ["<s>"]},
        {"added_tokens": 5},
        {"model": {"vocab": [5]}},
        {"post_processor": {"cls": []}},
        {"post_processor": {"processors": 5}},
    ],
)
def test_a_tokenizer_that_is_not_as_transformers_writes_it_is_refused_in_a_line(
    write: Write, spoilt: dict[str, Any]
) -> None:
    folder = write("llama")
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": {"vocab": WORDS}, **spoilt}))
    assert "its tokenizer's files are not as transformers writes them" in refusal(folder)


def test_a_link_that_leads_nowhere_is_named(write: Write) -> None:
    folder = write("llama")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0123")
    assert "is a link to ../../blobs/0123, which is not there" in refusal(folder)


def test_an_added_token_beyond_it_counts_only_where_the_tokenizer_gives_it_itself(write: Write) -> None:
    folder = write("llama")
    tokenizer(folder, WORDS, added={"<extra>": 70})
    accepted(folder)
    tokenizer(folder, WORDS, added={"<extra>": 70}, post_processor={"special_tokens": {"<extra>": {}}})
    assert "up to 70" in refusal(folder)
    tokenizer(folder, WORDS, added={"<extra>": 70})
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<extra>"}))
    assert "up to 70" in refusal(folder)


@pytest.mark.parametrize("name", ["vocab.txt", "vocab.json"])
def test_older_forms_of_vocabularies_are_read(write: Write, name: str) -> None:
    folder = write("llama")
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in refusal(folder)
    words = [f"w{i}" for i in range(65)]
    text = "\n".join(words) if name == "vocab.txt" else json.dumps({word: i for i, word in enumerate(words)})
    (folder / name).write_text(text)
    assert "up to 6" in refusal(folder)


# ---- lengths and memory


def rope(kind: str, factor: float, original: int) -> dict[str, Any]:
    return {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original}


@pytest.mark.parametrize(
    ("model_type", "fields", "limit"),
    [
        ("gpt2", {"n_positions": 256}, 256),
        ("gpt2", {}, 1024),
        ("llama", {"max_position_embeddings": 256}, 256),
        ("opt", {"max_position_embeddings": 256}, 256),
        ("bert", {"max_position_embeddings": 256}, 256),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("xlm-roberta", {"max_position_embeddings": 514}, 512),
        ("camembert", {"max_position_embeddings": 514}, 512),
        ("mpnet", {"max_position_embeddings": 514, "pad_token_id": 0}, 512),
        ("t5", {"max_position_embeddings": 256, "n_positions": 512}, None),
        ("mt5", {}, None),
        ("bloom", {"seq_length": 2048}, None),
        ("falcon", {"alibi": True}, None),
        ("falcon", {"alibi": False, "max_position_embeddings": 128}, 128),
        ("mpt", {"max_seq_len": 64}, None),
        ("mpt", {"max_seq_len": 64, "attn_config": {"alibi": False}}, 64),
        ("llama", {"max_position_embeddings": 256, "rope_scaling": {"type": "linear", "factor": 4.0}}, 1024),
        ("qwen2", {"max_position_embeddings": 256, "rope_parameters": rope("yarn", 4.0, 256)}, 1024),
        ("llama", {"max_position_embeddings": 2048, "rope_scaling": rope("llama3", 8.0, 128)}, 2048),
    ],
)  # fmt: skip
def test_positions_are_what_the_model_was_made_for(model_type: str, fields: dict[str, Any], limit: int | None) -> None:
    assert positions(Config(fields, model_type, config_class(model_type)), "decoder") == limit


@pytest.mark.parametrize(("side", "limit"), [("encoder", 16384), ("decoder", 1024)])
def test_either_half_has_its_own(side: Side, limit: int) -> None:
    assert positions(Config({}, "led", config_class("led")), side) == limit


def test_prompt_and_new_tokens_are_added_up(write: Write) -> None:
    found = accepted(write("gpt2", n_positions=256))
    assert found.beyond(Generation(prompt_tokens=252, new_tokens=4).spans) is None
    span, limit = found.beyond(Generation(prompt_tokens=252, new_tokens=5).spans) or (None, 0)
    assert span is not None
    assert (span.settings[0], span.parts, limit) == ("prompt_tokens", (252, 5), 256)


def test_sources_and_what_is_written_count_apart(write: Write) -> None:
    found = accepted(write("bart", max_position_embeddings=64, encoder_layers=2, decoder_layers=2), "seq2seq")
    assert found.beyond(Translation(source_tokens=64, new_tokens=63).spans) is None
    beyond = found.beyond(Translation(source_tokens=64, new_tokens=64).spans)
    assert beyond is not None
    assert beyond[0].settings[0] == "decoder_tokens"


def test_the_least_memory_is_below_what_a_run_takes(tiny: Any, tiny_folder: Any) -> None:
    from objectives.devices.cpu import Cpu
    from objectives.runtime.in_torch.runner import TorchRunner

    workload = Generation(batch_size=64, prompt_tokens=32, new_tokens=8)
    least = accepted(tiny_folder("llama")).least_bytes(workload.batch_size, workload.spans)
    assert 0 < least < Cpu(threads=1).memory(TorchRunner(tiny("llama")), workload).peak + 64 * 40 * 8
    huge = Generation(batch_size=10**9)
    assert accepted(tiny_folder("llama")).least_bytes(huge.batch_size, huge.spans) > 1 << 40


def test_geometric_means_need_no_positive_numbers() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([0.0, 1.0]) == 0.5
    assert str(geometric_mean([float("nan"), 1.0])) == "nan"


def test_neither_torch_nor_transformers_is_imported(write: Write) -> None:
    code = (
        "import sys; from objectives.models.inspection import inspect; "
        f"inspect({str(write('llama'))!r}, 'causal_lm'); print({{'torch', 'transformers'}} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
