"""Describes packed linears for a manifest, and makes them again from what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from objectives.models import LoadedModel
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.embedding import Int8Embedding
from objectives.packing.fp32 import Fp32Linear
from objectives.packing.int4 import Int4Linear
from objectives.packing.int8 import Int8Linear, Int8WeightLinear

_STORED: Mapping[str, type[nn.Module]] = {
    "fp32": Fp32Linear,
    "bf16": Bf16Linear,
    "int8": Int8Linear,
    "int8_weight_only": Int8WeightLinear,
    "int4": Int4Linear,
    "int8_embedding": Int8Embedding,
}


def packed_linears(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the packed linears and embeddings of ``module`` by name."""
    kinds = tuple(_STORED.values())
    return [(name, child) for name, child in module.named_modules() if isinstance(child, kinds)]


def describe(module: nn.Module, model: LoadedModel) -> dict[str, Any]:
    """Return the manifest's description of a packed linear: enough to make it again, still empty."""
    description: dict[str, Any] = {"stored": next(name for name, cls in _STORED.items() if type(module) is cls)}
    if isinstance(module, Int4Linear):
        description |= {"group_size": module.group_size, "scaled_inputs": module.inputs is not None}
    if isinstance(module, Int8Embedding):
        description["factor"] = module.factor
    first = _embedding(model)
    if first is not None and module is not first and getattr(module, "codes", None) is first.codes:
        description["tied"] = True
    return description


def _embedding(model: LoadedModel) -> Int8Embedding | None:
    """Return the packed embedding; the first where several share their tensors, None where there is none."""
    return next((part for part in model.module.modules() if isinstance(part, Int8Embedding)), None)


def empty_like(model: LoadedModel, linear: nn.Module, description: Mapping[str, Any]) -> nn.Module:
    """Make a packed linear of the right shapes, still to be filled; a tied weight stays tied. Raises ValueError."""
    stored = description["stored"]
    first = _embedding(model) if description.get("tied") else None
    if stored == "int8_embedding":
        assert isinstance(linear, nn.Embedding)
        shape = linear.weight.shape
        codes = torch.empty(shape, dtype=torch.int8) if first is None else first.codes
        return Int8Embedding(codes, torch.empty(shape[0]) if first is None else first.scale, description["factor"])
    assert isinstance(linear, nn.Linear)
    if first is not None:
        return Int8WeightLinear(first.codes, first.scale, linear.bias)
    out, width, bias = linear.out_features, linear.in_features, linear.bias
    if stored == "fp32":
        return Fp32Linear.from_linear(linear)
    if stored == "bf16":
        return Bf16Linear.from_linear(linear)
    if stored in {"int8", "int8_weight_only"}:
        kind = Int8Linear if stored == "int8" else Int8WeightLinear
        return kind(torch.empty(out, width, dtype=torch.int8), torch.empty(out), bias)
    if stored != "int4":
        raise ValueError(f"stored: one of {', '.join(_STORED)} expected, got {stored!r}")
    scale_zero = torch.empty(width // description["group_size"], out, 2, dtype=torch.bfloat16)
    inputs = torch.empty(width, dtype=torch.bfloat16) if description["scaled_inputs"] else None
    return Int4Linear(torch.empty(out, width // 2, dtype=torch.uint8), scale_zero, bias, inputs)
