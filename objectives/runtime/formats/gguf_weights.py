"""Writes a packed decoder of Llama type as a GGUF file: architecture ``llama``, or ``deci`` where widths differ.

What is of Llama type is decided by the parameters: every one must have a place in the file, and the config must ask for
nothing that the engine's formula lacks. llama.cpp rotates neighbouring pairs of rows of queries and keys, so these rows
are written in another order; codes, scales and biases move along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from objectives.assets.gguf import NAMES
from objectives.errors import Unsupported
from objectives.runtime.engines.weights import Rounded, is_matrix, matrices, owners
from objectives.runtime.formats.gguf_blocks import blocks_of

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from numpy.typing import NDArray

    from objectives.models import LoadedModel
    from objectives.models.blocks import Block
    from objectives.runtime.engines.weights import Stored

_OF_GGUF = {module: name for name, module in NAMES.items()}
_LLAMA_3 = "llama3"
_KV_BLOCK = 32
_KV_BYTES = {32: 128, 16: 64, 8: 34, 4: 18}
"""Bytes of a block of keys or values, by bits; below 16 with a scale in fp16."""
_FIELDS = ("hidden_size", "max_position_embeddings", "rms_norm_eps", "rope_parameters")


def without_tokenizer(writer: GGUFWriter) -> None:
    """Write into a header that there is no tokenizer: the engine is given ids."""
    writer.add_tokenizer_model("none")


def write(
    model: LoadedModel, file: Path, add_tokenizer: Callable[[GGUFWriter], None] = without_tokenizer
) -> dict[str, int]:
    """Write ``model`` into ``file`` and return the bytes of each matrix by its module's name. Raises Unsupported.

    ``add_tokenizer`` writes what the header says of the tokenizer.
    """
    from gguf import GGUFWriter

    config = model.module.config
    blocks = list(model.blocks())
    require_llama(model)
    heads = [_heads(block) for block in blocks]
    ffns = [block.linear(block.stack.ffns[0].out).in_features for block in blocks]
    uniform = len({*zip(heads, ffns)}) == 1
    writer = GGUFWriter(file, "llama" if uniform else "deci")
    writer.add_block_count(len(blocks))
    writer.add_feed_forward_length(ffns[0] if uniform else ffns)
    writer.add_head_count(heads[0][0] if uniform else [query for query, _ in heads])
    writer.add_head_count_kv(heads[0][1] if uniform else [key for _, key in heads])
    _add_config(writer, model, config)
    add_tokenizer(writer)
    sizes = _add_weights(writer, model, dict(enumerate(heads)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sizes


def sizes_of(model: LoadedModel, file: Path) -> dict[str, int]:
    """Return the bytes of each matrix of ``model`` in a file that was rounded since, by its module's name."""
    from gguf import GGUFReader

    stored = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(file).tensors}
    return {name: stored[f"{_place(name)}.weight"] for name, _ in matrices(model)}


def names_of(modules: Iterable[str]) -> dict[str, str]:
    """Return the names of the weights of ``modules`` in the file."""
    return {module: f"{_place(module)}.weight" for module in modules}


def _heads(block: Block) -> tuple[int, int]:
    """Return the query heads and the KV heads of a block."""
    attention = block.stack.attentions[0]
    return tuple(block.linear(path).out_features // block.head_dim for path in (attention.query, attention.key))  # type: ignore[return-value]


def key_values(model: LoadedModel, bits: int) -> dict[str, float]:
    """Return the options of an engine of ``model`` whose keys and values have ``bits``: the bits, and bytes per token.

    Below 16 bits, in blocks of Q8_0 or Q4_0. Raises Unsupported for heads that such blocks do not fill.
    """
    if bits < 16 and model.head_dim % _KV_BLOCK:
        raise Unsupported(
            f"kv.bits: llama.cpp rounds {_KV_BLOCK} channels of a head together, and heads have {model.head_dim} here: "
            "kv.bits=16"
        )
    channels = sum(2 * _heads(block)[1] * block.head_dim for block in model.blocks())
    return {"kv_bits": bits, "kv_bytes_per_token": channels / _KV_BLOCK * _KV_BYTES[bits]}


def require_llama(model: LoadedModel) -> None:
    """Raise Unsupported where the parameters or the config of ``model`` are not of Llama type."""
    config = model.module.config
    kind = config.model_type
    for field in _FIELDS:
        if getattr(config, field, None) is None:
            raise Unsupported(f"llama.cpp: {kind} models are not written here: their config has no {field}")
    for name, _ in model.module.named_parameters():
        if _place(name.rpartition(".")[0]) is None:
            raise Unsupported(f"llama.cpp: {kind} models are not written here: {name} has no place in the file")
    if getattr(config, "hidden_act", "silu") not in ("silu", "swish"):
        raise Unsupported(f"llama.cpp: {kind} models are not written here: their activation is {config.hidden_act}")
    layers = set(getattr(config, "layer_types", None) or ())
    if layers - {"full_attention"} or (not layers and getattr(config, "sliding_window", None)):
        raise Unsupported(f"llama.cpp: {kind} models with a sliding window are not written here")


def _add_config(writer: GGUFWriter, model: LoadedModel, config: Any) -> None:
    import torch

    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(model.vocabulary)
    for add in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
        add(model.head_dim)
    rotary: Mapping[str, Any] = config.rope_parameters
    writer.add_rope_freq_base(rotary["rope_theta"])
    kind = rotary.get("rope_type", "default")
    if rotary.get("partial_rotary_factor", 1.0) != 1.0 or kind not in ("default", "linear", _LLAMA_3):
        raise Unsupported(f"llama.cpp: rotary positions of type {kind} are not written here")
    if kind == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rotary["factor"])
    if kind == _LLAMA_3:
        plain = 1.0 / rotary["rope_theta"] ** (torch.arange(0, model.head_dim, 2).float() / model.head_dim)
        scaled = model.module.base_model.rotary_emb.inv_freq.float().cpu()
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy())


def _add_weights(writer: GGUFWriter, model: LoadedModel, heads: Mapping[int, tuple[int, int]]) -> dict[str, int]:
    sizes = {}
    for name, stored in matrices(model):
        data, kind = blocks_of(name, _ordered(stored, _order(name, heads, model.head_dim)))
        sizes[name] = data.nbytes
        rows = len(stored.codes if isinstance(stored, Rounded) else stored.values)
        writer.add_tensor(f"{_place(name)}.weight", data.reshape(rows, -1), raw_dtype=kind)
    shared = {name for name, owner in owners(model).items() if name != owner}
    for name, module in model.module.named_modules():
        for leaf, value in () if name in shared else module.named_parameters(recurse=False):
            if leaf == "weight" and is_matrix(module):
                continue
            order = _order(name, heads, model.head_dim)
            values = value.detach().float().numpy()
            writer.add_tensor(f"{_place(name)}.{leaf}", values if order is None else values[order])
    return sizes


def _place(module: str) -> str | None:
    """Return the name of GGUF for a module, as ``blk.3.attn_q`` for ``model.layers.3.self_attn.q_proj``."""
    inside = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
    known = _OF_GGUF.get(inside[2] if inside else module)
    return known if known is None or inside is None else f"blk.{inside[1]}.{known}"


def _order(name: str, heads: Mapping[int, tuple[int, int]], head_dim: int) -> NDArray[np.int64] | None:
    """Return the rows of queries and keys in the order of llama.cpp; None for all other modules."""
    rotated = re.fullmatch(r"model\.layers\.(\d+)\.self_attn\.([qk])_proj", name)
    if rotated is None:
        return None
    count = heads[int(rotated[1])]["qk".index(rotated[2])]
    return np.arange(count * head_dim).reshape(count, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)


def _ordered(stored: Stored, order: NDArray[np.int64] | None) -> Stored:
    if order is None:
        return stored
    if not isinstance(stored, Rounded):
        return replace(stored, values=stored.values[order])
    zeros = None if stored.zeros is None else stored.zeros[order]
    return replace(stored, codes=stored.codes[order], scales=stored.scales[order], zeros=zeros)
