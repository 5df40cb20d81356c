"""Checkpoints with one fault each, made from tiny random models: what strangers bring.

``build(folder)`` writes them all, by name; a name is used as ``model.path=models/<name>`` in :mod:`bad_inputs`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = {
    "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 160, "vocab_size": 512,
    "max_position_embeddings": 256, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
T5 = {
    "d_model": 64, "num_heads": 4, "d_kv": 16, "d_ff": 128, "num_layers": 2, "vocab_size": 512,
    "decoder_start_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def build(folder: Path) -> None:
    """Write sound models first, then copies with a fault each."""
    make(folder / "llama", "llama", "AutoModelForCausalLM", {**SMALL, "num_key_value_heads": 2})
    make(folder / "gpt2", "gpt2", "AutoModelForCausalLM", SMALL)
    make(folder / "bert", "bert", "AutoModel", SMALL)
    heads = {"classifier": "SequenceClassification", "tagger": "TokenClassification", "reader": "QuestionAnswering"}
    for name, head in heads.items():
        make(folder / name, "bert", f"AutoModelFor{head}", SMALL)
    make(folder / "roberta", "roberta", "AutoModelForMaskedLM", SMALL)
    make(folder / "t5", "t5", "AutoModelForSeq2SeqLM", T5)
    for name, spoil in FAULTS.items():
        shutil.copytree(folder / "llama", folder / name)
        spoil(folder / name)


def make(folder: Path, family: str, kind: str, fields: dict[str, Any], tokens: int = 500) -> None:
    """A random model of ``family`` with a word-level tokenizer."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **fields)
    getattr(transformers, kind).from_config(config).save_pretrained(folder)
    tokenizer(tokens).save_pretrained(folder)


def tokenizer(tokens: int) -> Any:
    """Words by number, so that any size can be made."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"word{number}" for number in range(tokens - 4))]
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special)


def configured(**fields: Any) -> Callable[[Path], None]:
    """Another config.json; a field of None is taken out."""

    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        config = {**json.loads(file.read_text()), **fields}
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return spoil


def without(*names: str) -> Callable[[Path], None]:
    """Files are missing."""

    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def renamed(old: str, new: str) -> Callable[[Path], None]:
    """A file has another name."""

    def spoil(folder: Path) -> None:
        (folder / old).rename(folder / new)

    return spoil


def written(name: str, content: bytes | str | dict[str, Any]) -> Callable[[Path], None]:
    """A file has this content."""

    def spoil(folder: Path) -> None:
        data = json.dumps(content) if isinstance(content, dict) else content
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    return spoil


def cut(folder: Path) -> None:
    """A download that broke off."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def sharded(folder: Path) -> None:
    """A shard that the index names is missing."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"model.norm.weight": "model-00002-of-00002.safetensors"}
    written("model.safetensors.index.json", {"metadata": {}, "weight_map": shards})(folder)


def adapter(folder: Path) -> None:
    """What PEFT writes."""
    for file in folder.iterdir():
        file.unlink()
    written("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "base"})(folder)
    written("adapter_model.safetensors", b"")(folder)


def pipeline(folder: Path) -> None:
    """What diffusers writes."""
    (folder / "config.json").rename(folder / "model_index.json")


def emptied(folder: Path) -> None:
    """A folder without files."""
    for file in folder.iterdir():
        file.unlink()


def more_tokens(folder: Path) -> None:
    """A tokenizer of another, larger model."""
    tokenizer(2000).save_pretrained(folder)


def quantized(method: str, **more: Any) -> Callable[[Path], None]:
    """As ``method`` leaves a checkpoint."""
    return configured(quantization_config={"quant_method": method, **more})


FAULTS: dict[str, Callable[[Path], None]] = {
    "truncated": cut,
    "garbage": written("model.safetensors", b"this is no tensor file at all" * 100),
    "empty_weights": written("model.safetensors", b""),
    "missing_shard": sharded,
    "one_layer_less": configured(num_hidden_layers=1, layer_types=None),
    "one_layer_more": configured(num_hidden_layers=3, layer_types=None),
    "another_width": configured(hidden_size=96, head_dim=24),
    "another_vocabulary": configured(vocab_size=300),
    "no_tokenizer": without("tokenizer.json", "tokenizer_config.json"),
    "larger_tokenizer": more_tokens,
    "pickled": renamed("model.safetensors", "pytorch_model.bin"),
    "gguf": renamed("model.safetensors", "model-q4_0.gguf"),
    "onnx": renamed("model.safetensors", "model.onnx"),
    "remote_code": configured(model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"}),
    "unknown": configured(model_type="lama3"),
    "state_space": configured(model_type="mamba"),
    "vision": configured(model_type="vit"),
    "gptq": quantized("gptq", bits=4, group_size=128),
    "awq": quantized("awq", bits=4),
    "bitsandbytes": quantized("bitsandbytes", load_in_4bit=True),
    "fp8": quantized("fp8"),
    "compressed_tensors": quantized("compressed-tensors", config_groups={}),
    "adapter": adapter,
    "empty": emptied,
    "no_config": without("config.json"),
    "torn_config": written("config.json", '{"model_type": "llama", '),
    "list_config": written("config.json", "[1, 2]"),
    "diffusers": pipeline,
    "winner": written("paretune.json", {"format": 5}),
}  # fmt: skip
