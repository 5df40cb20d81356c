"""Finds out which numbers of heads a plain config can say, by trying: classes of transformers differ.

Some configs refuse a width that the number of heads does not divide; some classes derive the width of a head from the
number of heads, so that fewer heads of the same width cannot be said at all; some have one number for several stacks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from transformers.initialization import no_init_weights

from objectives.models import LoadedModel, auto_class
from objectives.models.anatomy import Stack
from objectives.models.blocks import Unit
from objectives.models.canonical import canonicalize_

_KV_HEADS = "num_key_value_heads"


def plain_groups(model: LoadedModel) -> Mapping[str, frozenset[int]]:
    """Return, by the path of a stack of the dense ``model``, the numbers of KV groups that its config can say.

    The dense number is among them. A stack without heads to prune is left out.
    """
    found = {}
    for stack in model.family.stacks:
        block = model.block(f"{stack.layers}.{model.layers_of(stack)[0]}")
        unit = next((unit for unit in block.units if unit.kind == "attention"), None)
        if unit is not None:
            found[stack.layers] = frozenset(_groups(model, stack, unit, block.head_dim))
    return found


def _groups(model: LoadedModel, stack: Stack, unit: Unit, head_dim: int) -> set[int]:
    """Return the numbers that the config takes, if the class builds what one of them says."""
    configs = {kept: _config(model, stack, unit, head_dim, kept) for kept in range(1, unit.count)}
    taken = {kept: config for kept, config in configs.items() if config is not None}
    if not taken or not _is_built(model, stack, max(taken), taken[max(taken)]):
        return {unit.count}
    return {unit.count, *taken}


def _config(model: LoadedModel, stack: Stack, unit: Unit, head_dim: int, kept: int) -> Any:
    """Return the model's config with ``kept`` KV groups and their query heads; None where its class refuses them."""
    config = model.module.config
    heads = {stack.heads: kept * unit.width // head_dim, _KV_HEADS: kept, "head_dim": head_dim}
    names: Mapping[str, str] = getattr(type(config), "attribute_map", {})
    said = {names.get(name, name): value for name, value in heads.items() if _takes(config, name)}
    try:
        return type(config).from_dict({**copy.deepcopy(config.to_dict()), **said})
    except Exception:  # configs refuse in many ways
        return None


def _takes(config: Any, name: str) -> bool:
    """Return whether ``name`` is no number that the class computes, nor one of KV heads where it knows none."""
    computed = isinstance(getattr(type(config), name, None), property)
    return not computed and (name != _KV_HEADS or hasattr(config, name))


def _is_built(model: LoadedModel, stack: Stack, kept: int, config: Any) -> bool:
    """Return whether the class that ``config`` describes has ``kept`` groups in ``stack``, and all else as before."""
    try:
        with torch.device("meta"), no_init_weights():
            module = auto_class(model.head).from_config(config, dtype=torch.bfloat16)
            built = canonicalize_(LoadedModel(module, None, model.head, row=model.row))
    except Exception:  # classes refuse in many ways
        return False
    for dense, block in zip(model.blocks(), built.blocks(), strict=True):
        for before, after in zip(dense.units, block.units, strict=True):
            cut = before.kind == "attention" and dense.stack.layers == stack.layers
            if after.count != (kept if cut else before.count) or after.width != before.width:
                return False
        fixed = (part.out for part in dense.stack.attentions if not part.prunable)
        if any(dense.linear(path).in_features != block.linear(path).in_features for path in fixed):
            return False
    return True
