"""Checkpoints whose config speaks of every block: ``nemotron-nas``, which vLLM runs as DeciLM.

Blocks may differ in the width of their FFN, while heads stay. Engines other than vLLM read the width as a multiple of
the hidden size that is rounded up to the next 256, so a width that is such a multiple is written in this form.
``per_layer_config`` says the same to transformers from 5.19 on, whose classes do not read it yet.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.models.blocks import Block
from objectives.runtime.engines.weights import Dense, matrices
from objectives.runtime.formats import configuration_decilm
from objectives.runtime.formats.hugging_face import CONFIG, others, write_folder

_UNIT = 256
_CODE = Path(configuration_decilm.__file__)


def write(model: LoadedModel, tokenizer: Any, folder: Path) -> dict[str, int]:
    """Write ``model``, which computes as a Llama does, into ``folder``; return the bytes of each matrix by its module.

    ``tokenizer``: None where the folder needs none. Raises Unsupported.
    """
    config = deci_config(model)
    tensors, sizes = dict(others(model)), {}
    for name, each in matrices(model):
        if not isinstance(each, Dense):
            raise Unsupported("blocks that differ are written in 16 bits: quantization.bits=16")
        tensors[f"{name}.weight"] = torch.from_numpy(each.values).to(torch.bfloat16)
        sizes[name] = each.values.size * 2
    _require_known(model, tensors)
    write_folder(folder, model, model.module.config, tensors, tokenizer)
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copyfile(_CODE, folder / _CODE.name)
    return sizes


def _require_known(model: LoadedModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise Unsupported for a tensor that the class of ``model`` does not have by its config: engines drop it silently.

    A model may compute as a Llama does and have more, such as the biases of Qwen2.
    """
    with torch.device("meta"):
        known = type(model.module)(model.module.config).state_dict().keys()
    more = sorted(tensors.keys() - known)
    if more:
        raise Unsupported(f"format=hf: a config per block has no place for {more[0]}: pruning.layout=uniform")


def deci_config(model: LoadedModel) -> dict[str, Any]:
    """Return the config of ``model`` with a part for each of its blocks. Raises Unsupported where heads differ."""
    blocks = list(model.blocks())
    heads = {_heads(block) for block in blocks}
    if len(heads) > 1:
        raise Unsupported(
            "a config per block says the width of every FFN; here blocks differ in their heads too: "
            "pruning.layout=deci or uniform"
        )
    (query, key) = heads.pop()
    config = model.module.config.to_dict()
    hidden = int(config["hidden_size"])
    for name in ("_name_or_path", "intermediate_size", "transformers_version"):
        config.pop(name, None)
    return {
        **config,
        "architectures": ["DeciLMForCausalLM"],
        "model_type": configuration_decilm.DeciLMConfig.model_type,
        "auto_map": {"AutoConfig": f"{_CODE.stem}.{configuration_decilm.DeciLMConfig.__name__}"},
        "dtype": "bfloat16",
        "num_hidden_layers": len(blocks),
        "num_attention_heads": query,
        "num_key_value_heads": key,
        "head_dim": model.head_dim,
        "block_configs": [_described(block, query // key, hidden) for block in blocks],
        "per_layer_config": {str(place): {"intermediate_size": _width(block)} for place, block in enumerate(blocks)},
    }


def _heads(block: Block) -> tuple[int, int]:
    attention = block.stack.attentions[0]
    query, key = (block.linear(path).out_features // block.head_dim for path in (attention.query, attention.key))
    return query, key


def _width(block: Block) -> int:
    return block.linear(block.stack.ffns[0].out).in_features


def _described(block: Block, group: int, hidden: int) -> dict[str, Any]:
    """Return the part of one block; ``group``: query heads that share a key."""
    width = _width(block)
    width_said = {"ffn_mult": 3 * width / (2 * hidden)} if width % _UNIT == 0 else {"intermediate_size": width}
    kept = {"no_op": False, "replace_with_linear": False}
    return {"attention": {**kept, "n_heads_in_group": group}, "ffn": {**kept, **width_said}}
