"""Checkpoints of compressed-tensors: 8 bits as W8A8 (int-quantized), 4 bits as W4A16 (pack-quantized).

vLLM, SGLang and transformers load them. The codes and scales are those of our quantisers, to the bit. What one tensor
of an engine holds together (queries, keys and values; the two halves of a gated FFN) must have one width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.packing.embedding import Int8Embedding
from objectives.runtime.engines.weights import Dense, Rounded, Stored, block_linears, is_matrix, matrices
from objectives.runtime.formats.hugging_face import others, plain_config, write_folder
from objectives.runtime.formats.packed import MIDDLE, require_together, words

_FOUR = 4


def write(model: LoadedModel, tokenizer: Any, folder: Path) -> dict[str, int]:
    """Write ``model`` into ``folder`` and return the bytes of each matrix by its module's name. Raises Unsupported.

    ``tokenizer``: None where the folder needs none.
    """
    stored = dict(matrices(model))
    config = plain_config(model, stored)
    inside = block_linears(model)
    rounded = {name: each for name, each in stored.items() if isinstance(each, Rounded)}
    outside = sorted(rounded.keys() - inside)
    if outside:
        raise Unsupported(
            f"compressed-tensors: engines read {outside[0]} in 16 bits, the model has "
            f"{rounded[outside[0]].bits}: quantization.embeddings=16"
        )
    require_together("compressed-tensors", model, stored)
    plain = [name for name, module in model.module.named_modules() if name not in rounded and _is_linear(module)]
    config.quantization_config = _described(rounded, plain)
    tensors, sizes = dict(others(model)), {}
    for name, each in stored.items():
        parts = _tensors(name, each)
        sizes[name] = sum(part.nbytes for leaf, part in parts.items() if leaf != "weight_shape")
        tensors |= {f"{name}.{leaf}": part for leaf, part in parts.items()}
    write_folder(folder, model, config, tensors, tokenizer)
    return sizes


def _is_linear(module: nn.Module) -> bool:
    return is_matrix(module) and not isinstance(module, (nn.Embedding, Int8Embedding))


def _described(rounded: Mapping[str, Rounded], plain: Sequence[str]) -> dict[str, Any]:
    """Return the section of a config that says how ``rounded`` matrices are stored; ``plain``: linears that are not.

    A kind of storage that all rounded linears share is said of all linears; else of each by its name.
    """
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for name, each in rounded.items():
        kinds.setdefault((each.bits, each.group_size if each.bits == _FOUR else 0, _zeros(each)), []).append(name)
    if not kinds:
        raise Unsupported("compressed-tensors: nothing is rounded: format=hf")
    groups = {
        f"group_{place}": {"targets": ["Linear"] if len(kinds) == 1 else names, **_scheme(*kind)}
        for place, (kind, names) in enumerate(kinds.items())
    }
    formats = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": sorted(plain),
    }


def _scheme(bits: int, group: int, zeros: bool) -> dict[str, Any]:
    """Return what compressed-tensors calls a scheme; ``group``: inputs with a scale in common, 0 for a whole row."""
    weights = {"num_bits": bits, "type": "int", "symmetric": not zeros, "dynamic": False, "observer": "minmax"}
    if bits == _FOUR:
        packed = {"strategy": "group", "group_size": group}
        return {"format": "pack-quantized", "weights": {**weights, **packed}, "input_activations": None}
    token = {"num_bits": bits, "type": "int", "symmetric": True, "dynamic": True, "strategy": "token", "observer": None}
    row = {"strategy": "channel", "group_size": None}
    return {"format": "int-quantized", "weights": {**weights, **row}, "input_activations": token}


def _zeros(stored: Rounded) -> bool:
    """Return whether zeros have to be stored."""
    return stored.zeros is not None and bool((stored.zeros != MIDDLE).any())


def _tensors(name: str, stored: Stored) -> dict[str, Tensor]:
    """Return the tensors of a matrix by the last part of their names."""
    if isinstance(stored, Dense):
        return {"weight": torch.from_numpy(stored.values).to(torch.bfloat16)}
    if stored.inputs is not None:
        raise Unsupported(f"compressed-tensors has no place for factors of inputs ({name}): quantization=gptq")
    scales = torch.from_numpy(stored.scales)
    if stored.bits != _FOUR:
        return {"weight": torch.from_numpy(stored.codes).to(torch.int8), "weight_scale": scales}
    tensors = {
        "weight_packed": words(stored.codes),
        "weight_scale": scales.to(torch.bfloat16),
        "weight_shape": torch.tensor(stored.codes.shape),
    }
    if stored.zeros is not None and _zeros(stored):
        tensors["weight_zero_point"] = words(stored.zeros.T).t().contiguous()  # packed along the outputs
    return tensors
