"""Converts a GGUF file of a Llama-type model to a Hugging Face folder in bfloat16.

transformers reads GGUF only with accelerate and then cannot save the model. The conversion itself is short:
dequantise every tensor, rename it, undo llama.cpp's reordering of the query and key rows, and write the
metadata as a config and a byte-level BPE tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives.assets.asset import AssetError

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader
    from tokenizers import Tokenizer
    from transformers import LlamaConfig

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Tensors of llama.cpp with the modules of Hugging Face, without the ``blk.N.`` and ``model.layers.N.`` of blocks."""
_NORMAL, _CONTROL = 1, 3  # GGUF's token types


def convert(source: Path, into: Path) -> None:
    """Write the model of the GGUF file ``source`` as config, safetensors and tokenizer into ``into``.

    Raises :class:`AssetError` for an architecture, tokenizer or tensor that is not known here.
    """
    from gguf import GGUFReader
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    reader = GGUFReader(source)
    meta = {key: field.contents() for key, field in reader.fields.items()}
    if meta["general.architecture"] != "llama":
        raise AssetError(f"the GGUF file holds a {meta['general.architecture']} model, not a llama")
    weights = _weights(reader, meta)
    config = _config(meta, tied="lm_head.weight" not in weights)
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(into)
    ends = {"eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id}
    generation = GenerationConfig(bos_token_id=config.bos_token_id, **ends)  # type: ignore[no-untyped-call]
    generation.save_pretrained(into)
    save_tokenizer(_tokenizer(meta), into, **_special(meta))


def _weights(reader: GGUFReader, meta: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return all tensors by their Hugging Face names, in bfloat16."""
    import torch
    from gguf import dequantize

    heads = {"q": meta["llama.attention.head_count"], "k": meta["llama.attention.head_count_kv"]}
    weights = {}
    for tensor in reader.tensors:
        name = _rename(tensor.name)
        values = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        if projection := re.search(r"\.([qk])_proj\.", name):
            values = unpermute(values, heads[projection[1]])
        weights[name] = values.to(torch.bfloat16).contiguous()
    return weights


def _rename(name: str) -> str:
    """Rename ``blk.3.attn_q.weight`` to ``model.layers.3.self_attn.q_proj.weight``. Raises AssetError if unknown."""
    parts = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    if not parts or parts[2] not in NAMES:
        raise AssetError(f"unknown tensor in the GGUF file: {name}")
    layer = f"model.layers.{parts[1]}." if parts[1] else ""
    return f"{layer}{NAMES[parts[2]]}.weight"


def unpermute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Restore Hugging Face's row order of a query or key projection [heads * head_dim, hidden] of llama.cpp.

    llama.cpp rotates neighbouring pairs of rows (2i, 2i + 1), Hugging Face rotates (i, i + head_dim / 2).
    """
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _config(meta: Mapping[str, Any], tied: bool) -> LlamaConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        vocab_size=len(meta["tokenizer.ggml.tokens"]),
        hidden_size=meta["llama.embedding_length"],
        intermediate_size=meta["llama.feed_forward_length"],
        num_hidden_layers=meta["llama.block_count"],
        num_attention_heads=meta["llama.attention.head_count"],
        num_key_value_heads=meta["llama.attention.head_count_kv"],
        head_dim=meta["llama.rope.dimension_count"],
        max_position_embeddings=meta["llama.context_length"],
        rms_norm_eps=_short(meta["llama.attention.layer_norm_rms_epsilon"]),
        rope_parameters={"rope_type": "default", "rope_theta": meta["llama.rope.freq_base"]},
        tie_word_embeddings=tied,
        bos_token_id=meta["tokenizer.ggml.bos_token_id"],
        eos_token_id=meta["tokenizer.ggml.eos_token_id"],
        pad_token_id=meta["tokenizer.ggml.padding_token_id"],
    )


def _short(value: float) -> float:
    """Return the decimal that was meant before it was stored in 32 bits: 1e-05 for 9.99999975e-06."""
    return float(f"{value:.6g}")


def _special(meta: Mapping[str, Any]) -> dict[str, Any]:
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    return {
        "bos_token": tokens[meta["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[meta["tokenizer.ggml.eos_token_id"]],
        "unk_token": tokens[meta["tokenizer.ggml.unknown_token_id"]],
        "pad_token": tokens[meta["tokenizer.ggml.padding_token_id"]],
        "model_max_length": meta["llama.context_length"],
        "chat_template": meta.get("tokenizer.chat_template"),
    }


def _tokenizer(meta: Mapping[str, Any]) -> Tokenizer:
    """Return a byte-level BPE; every digit is its own piece, as in all SmolLM models (``pre`` = smollm)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = (meta["tokenizer.ggml.model"], meta["tokenizer.ggml.pre"])
    types = meta["tokenizer.ggml.token_type"]
    if kind != ("gpt2", "smollm") or not set(types) <= {_NORMAL, _CONTROL}:
        raise AssetError(f"the GGUF file holds a tokenizer that is not known here: {'/'.join(kind)}")
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = [AddedToken(t, normalized=False) for t, kind in zip(tokens, types) if kind == _CONTROL]
    tokenizer.add_special_tokens(control)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, into: Path, **settings: Any) -> None:
    """Write tokenizer.json and tokenizer_config.json; ``settings`` name the special tokens."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **settings
    )
    fast.save_pretrained(into, save_jinja_files=False)
