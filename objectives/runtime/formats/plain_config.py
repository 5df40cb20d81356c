"""Finds the config by which a class of transformers has exactly the tensors of a pruned model.

What a config can say is not looked up by names: the class is built from it, and names and shapes are compared.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from objectives.models import LoadedModel, auto_class
from objectives.models.anatomy import Stack
from objectives.models.canonical import canonicalize_
from objectives.tasks.answers import in_a_line

log = logging.getLogger(__name__)

TRIES = 8
"""Number of fields without a value that are tried: for each the model is built, in as much memory as it takes."""


def _raise_of_machine(error: Exception) -> None:
    """Raise ``error`` again if memory or disk ran out; an OSError without a number is a refusal of transformers."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        raise error


def config_of(model: LoadedModel, shapes: Mapping[str, Sequence[int]]) -> Any:
    """Return a config whose class has exactly the tensors of ``shapes``, by name; None where no fields give one.

    ``shapes``: those of ``model``, its linears being [out, in].
    """
    config = copy.deepcopy(model.module.config)
    wrong = _mismatches(config, model, shapes)
    if wrong is None:
        return None
    for changes in _changes(model, config) if wrong else ():
        changed = _with(config, changes)
        left = None if changed is None else _mismatches(changed, model, shapes)
        if left is not None and len(left) < len(wrong):
            config, wrong = changed, left
        if not wrong:
            break
    return None if wrong else config


def _with(config: Any, changes: Mapping[str, Any]) -> Any:
    """Return a copy of ``config`` with ``changes``; None where a field takes no such value."""
    changed = copy.deepcopy(config)
    try:
        for name, value in changes.items():
            setattr(changed, name, value)
    except Exception as error:  # configs check in many ways
        _raise_of_machine(error)
        log.debug("%s takes no %s: %s", type(config).__name__, changes, in_a_line(error))
        return None
    return changed


def _changes(model: LoadedModel, dense: Any) -> Iterator[dict[str, Any]]:
    """Yield changes of fields that may express what all blocks of a stack lost, likely ones first.

    It ends at the first unit whose width differs between blocks.
    """
    whole = canonicalize_(LoadedModel(stock_class(dense, model), None, model.head, row=model.row))
    for stack in model.family.stacks:
        before = whole.block(f"{stack.layers}.0")
        after = [model.block(f"{stack.layers}.{index}") for index in model.layers_of(stack)]
        for unit, *kept_units in zip(before.units, *(block.units for block in after), strict=True):
            counts = {kept.count for kept in kept_units}
            if counts == {unit.count}:
                continue
            if len(counts) > 1:
                return
            yield from (
                _heads(stack, dense, before.head_dim, unit.count, counts.pop())
                if unit.kind == "attention"
                else _fields(dense, unit.count * unit.width, counts.pop() * unit.width)
            )


def _heads(stack: Stack, config: Any, head_dim: int, count: int, kept: int) -> Iterator[dict[str, Any]]:
    names = [name for name in (stack.heads, "num_key_value_heads") if isinstance(getattr(config, name, None), int)]
    fewer = {name: getattr(config, name) * kept // count for name in names}
    yield {**fewer, "head_dim": head_dim}
    yield fewer


def _fields(config: Any, width: int, kept: int) -> Iterator[dict[str, Any]]:
    """Yield ``kept`` for any field that holds ``width``, whatever it is called, then for some that hold nothing."""
    fields = {
        name: value for name, value in vars(config).items() if not name.startswith("_") and not _is_of_tokens(name)
    }
    yield from ({name: kept} for name, value in fields.items() if value == width and not isinstance(value, bool))
    empty = [name for name, value in fields.items() if value is None]
    yield from ({name: kept} for name in sorted(empty, key=_is_unlike_a_width)[:TRIES])


def _is_of_tokens(name: str) -> bool:
    return name.endswith(("_id", "_ids")) or "token" in name


def _is_unlike_a_width(name: str) -> bool:
    return not any(word in name for word in ("inner", "dim", "size", "ff", "intermediate"))


def _mismatches(config: Any, model: LoadedModel, shapes: Mapping[str, Sequence[int]]) -> list[str] | None:
    """Return the names of tensors whose shapes differ; None where the class cannot be built, or lacks one of them."""
    try:
        stock = stock_class(config, model)
    except Exception as error:  # configs and classes refuse in many ways
        _raise_of_machine(error)
        log.debug("%s builds no model: %s", type(config).__name__, in_a_line(error))
        return None
    wanted = stock.state_dict()
    if shapes.keys() - wanted.keys():
        return None
    return [
        name
        for name, shape in shapes.items()
        if tuple(reversed(shape) if is_transposed(stock, name) else shape) != tuple(wanted[name].shape)
    ]


def stock_class(config: Any, model: LoadedModel) -> nn.Module:
    """Build the class of transformers that ``config`` describes, without values; not on meta: some read theirs."""
    with no_init_weights():
        module: nn.Module = auto_class(model.head).from_config(copy.deepcopy(config), dtype=torch.bfloat16)
    return module


def is_transposed(stock: nn.Module, name: str) -> bool:
    """Return whether ``stock`` holds the weight ``name`` of a linear as [in, out]."""
    owner, _, leaf = name.rpartition(".")
    return leaf == "weight" and isinstance(stock.get_submodule(owner), Conv1D)
