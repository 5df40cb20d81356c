"""Cuts in place: takes blocks out of a stack, and sets of channels out of a block by slicing its linears."""

from __future__ import annotations

import copy
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from objectives.models import LoadedModel
from objectives.models.anatomy import Stack
from objectives.models.blocks import Block, Unit


def keep_layers_(model: LoadedModel, stack: Stack, kept: Sequence[int]) -> None:
    """Keep only the blocks ``kept`` of a stack, ascending indices of the dense model.

    A block keeps what it derived from its place when it was built: scale, window, kind of position. Its place in the KV
    cache changes, and so do the config's lists with one entry per block.
    """
    base, config = model.module.base_model, model.module.config
    if model.dense_config is None:
        model.dense_config = copy.deepcopy(config)
    layers = model.layers_of(stack)
    positions = [layers.index(index) for index in kept]
    blocks = base.get_submodule(stack.layers)
    stack_config = getattr(base.get_submodule(stack.layers.rpartition(".")[0]), "config", config)
    base.set_submodule(stack.layers, nn.ModuleList([blocks[position] for position in positions]))
    for position, block in enumerate(base.get_submodule(stack.layers)):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position  # its place in the KV cache
    model.layers[stack.layers] = tuple(kept)
    for one in {id(config): config, id(stack_config): stack_config}.values():
        for name in per_layer_fields(one, len(layers)):
            listed = getattr(one, name)
            setattr(one, name, type(listed)(listed[position] for position in positions))
    setattr(config, stack.depth, len(kept))
    if stack_config is not config:  # T5's stacks have configs of their own
        stack_config.num_hidden_layers = len(kept)


def per_layer_fields(config: Any, blocks: int) -> list[str]:
    """Return the names of the config's lists with one entry for each of ``blocks`` blocks, whatever they are called.

    Lists of token ids, and the fields that all configs have, are no such lists.
    """
    general = vars(PreTrainedConfig())
    return [
        name
        for name, value in vars(config).items()
        if isinstance(value, (list, tuple))
        and len(value) == blocks
        and name not in general
        and not re.search("token|_ids?$", name)
    ]


def keep_outputs_(linear: nn.Linear, rows: Tensor) -> None:
    """Keep the output channels ``rows`` of a linear."""
    _keep_rows_(linear, rows)


def _keep_rows_(module: nn.Module, rows: Tensor) -> None:
    """Keep ``rows`` of every parameter of a linear, or of a norm that has one for each head."""
    for name, values in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(values[rows].contiguous(), requires_grad=False))
    if isinstance(module, nn.Linear):
        module.out_features = len(rows)


def set_inputs_(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give a consumer its new weight [out, kept inputs] and, when it has one, bias."""
    linear.weight = nn.Parameter(weight.to(linear.weight.dtype).contiguous(), requires_grad=False)
    if linear.bias is not None and bias is not None:
        linear.bias = nn.Parameter(bias.to(linear.bias.dtype).contiguous(), requires_grad=False)
    linear.in_features = weight.shape[1]


def channels_of(sets: Tensor, width: int) -> Tensor:
    """Return the channel indices of ``sets``, each ``width`` channels wide."""
    return (sets[:, None] * width + torch.arange(width)[None, :]).reshape(-1)


def kept_rows(unit: Unit, kept: Tensor) -> dict[str, Tensor]:
    """Return, by producer, the output rows of the sets ``kept``, in each of its parts where it has several."""
    return _rows(unit.producers, unit.count, kept)


def _rows(written: Sequence[tuple[str, int]], count: int, kept: Tensor) -> dict[str, Tensor]:
    rows, start = defaultdict(list), Counter[str]()
    for path, width in written:
        rows[path].append(channels_of(kept, width) + start[path])
        start[path] += width * count
    return {path: torch.cat(parts) for path, parts in rows.items()}


def keep_sets_(block: Block, unit: Unit, kept: Tensor) -> None:
    """Let the producers of ``unit`` write only the sets ``kept``. The consumer is left to the caller."""
    for path, rows in kept_rows(unit, kept).items():
        keep_outputs_(block.linear(path), rows)
    for path, rows in _rows(unit.followers, unit.count, kept).items():
        _keep_rows_(block.module.get_submodule(path), rows)
    count_sets_(block, unit, len(kept))


def count_sets_(block: Block, unit: Unit, kept: int) -> None:
    """Set the block's attributes that count something of this unit to ``kept`` sets."""
    for path, each in unit.attributes:
        block.set_attribute_(path, each * kept)


def shrink_(block: Block, unit: Unit, kept: int) -> int:
    """Give the linears of a unit ``kept`` sets, without values; returns ``kept``.

    Raises ValueError for a number that the unit cannot have.
    """
    if not 1 <= kept <= unit.count:
        raise ValueError(f"widths: 1 to {unit.count} sets expected in {unit.block}.{unit.consumer}, got {kept}")
    consumer = block.linear(unit.consumer)
    block.module.set_submodule(unit.consumer, _like(consumer, kept * unit.width, consumer.out_features))
    for path, rows in kept_rows(unit, torch.arange(kept)).items():
        producer = block.linear(path)
        block.module.set_submodule(path, _like(producer, producer.in_features, len(rows)))
    for path, rows in _rows(unit.followers, unit.count, torch.arange(kept)).items():
        _keep_rows_(block.module.get_submodule(path), rows)
    count_sets_(block, unit, kept)
    return kept


def _like(linear: nn.Linear, inputs: int, outputs: int) -> nn.Linear:
    """Return a linear of another shape; where the tensors of ``linear`` are fake, so are those of the new one."""
    resized = nn.Linear(inputs, outputs, bias=False, device="meta")
    resized.weight = nn.Parameter(linear.weight.new_empty(outputs, inputs), requires_grad=False)
    if linear.bias is not None:
        resized.bias = nn.Parameter(linear.bias.new_empty(outputs), requires_grad=False)
    return resized
