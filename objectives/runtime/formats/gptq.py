"""Checkpoints in GPTQ's first layout: 4 bits, eight codes to a word along the inputs, zeros stored less one.

vLLM, SGLang, and transformers with a GPTQ back end load them. Whatever chose the codes, they are written as they are;
``g_idx`` says that the inputs stand in their own order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.runtime.engines.weights import Dense, Rounded, Stored, block_linears, matrices
from objectives.runtime.formats.hugging_face import others, plain_config, write_folder
from objectives.runtime.formats.packed import IN_A_WORD, MIDDLE, require_together, words

SETTINGS = "quantize_config.json"
_BITS = 4


def write(model: LoadedModel, tokenizer: Any, folder: Path) -> dict[str, int]:
    """Write ``model`` into ``folder`` and return the bytes of each matrix by its module's name. Raises Unsupported.

    ``tokenizer``: None where the folder needs none.
    """
    stored = dict(matrices(model))
    config = plain_config(model, stored)
    inside = block_linears(model)
    rounded = {name: each for name, each in stored.items() if isinstance(each, Rounded)}
    if not rounded:
        raise Unsupported("format=gptq: nothing is rounded to 4 bits: format=hf")
    for name, each in rounded.items():
        _require_known(name, each, name in inside)
    require_together("gptq", model, stored)
    plain = [name for name in inside if name not in rounded]
    config.quantization_config = _described(rounded, sorted(plain))
    tensors, sizes = dict(others(model)), {}
    for name, matrix in stored.items():
        parts = _tensors(name, matrix)
        sizes[name] = sum(part.nbytes for leaf, part in parts.items() if leaf != "g_idx")
        tensors |= {f"{name}.{leaf}": part for leaf, part in parts.items()}
    write_folder(folder, model, config, tensors, tokenizer)
    (folder / SETTINGS).write_text(json.dumps(config.quantization_config, indent=1) + "\n", encoding="utf-8")
    return sizes


def _require_known(name: str, stored: Rounded, inside: bool) -> None:
    """Raise Unsupported for a rounded matrix that the layout cannot hold; ``inside``: it is a linear of a block."""
    if not inside:
        raise Unsupported(f"format=gptq: engines read {name} in 16 bits: quantization.embeddings=16")
    if stored.bits != _BITS:
        raise Unsupported(f"format=gptq: {name} has {stored.bits} bits, the layout {_BITS}: format=compressed-tensors")
    if stored.inputs is not None:
        raise Unsupported(f"format=gptq: there is no place for factors of inputs ({name}): quantization=gptq")
    if len(stored.codes) % IN_A_WORD:
        raise Unsupported(f"format=gptq: {name} has {len(stored.codes)} outputs, eight of them share a word")


def _described(rounded: Mapping[str, Rounded], plain: list[str]) -> dict[str, Any]:
    """Return the settings of the layout; ``plain``: linears of blocks that are not rounded.

    Linears with another group size than most, and those in 16 bits, are named by patterns, as GPTQModel reads them.
    """
    sizes = Counter(each.group_size for each in rounded.values())
    group = sizes.most_common(1)[0][0]
    odd = {f"+:^{re.escape(name)}$": {"group_size": each.group_size} for name, each in rounded.items()
           if each.group_size != group}  # fmt: skip
    return {
        "quant_method": "gptq",
        "bits": _BITS,
        "group_size": group,
        "sym": all(np.all(each.zeros == MIDDLE) for each in rounded.values()),
        "desc_act": False,
        "lm_head": False,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
        "meta": {"quantizer": [f"paretune:{version('paretune')}"]},
        **({"dynamic": {**odd, **{f"-:^{re.escape(name)}$": {} for name in plain}}} if odd or plain else {}),
    }


def _tensors(name: str, stored: Stored) -> dict[str, Tensor]:
    """Return the tensors of a matrix by the last part of their names."""
    if isinstance(stored, Dense):
        return {"weight": torch.from_numpy(stored.values).to(torch.bfloat16)}
    assert stored.zeros is not None
    if not stored.zeros.all():
        raise Unsupported(
            f"format=gptq: {name} has the zero 0, and zeros are stored less one: quantization.zero=middle"
        )
    scales = torch.from_numpy(stored.scales)
    if not torch.equal(scales.half().float(), scales):
        raise Unsupported(f"format=gptq: scales of {name} exceed what fp16 holds: format=compressed-tensors")
    inputs = torch.arange(stored.codes.shape[1], dtype=torch.int32)
    return {
        "qweight": words(stored.codes).t().contiguous(),
        "qzeros": words((stored.zeros - 1).T),
        "scales": scales.half().t().contiguous(),
        "g_idx": inputs // stored.group_size,
    }
