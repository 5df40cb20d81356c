"""A description of a model that no row describes: where its blocks are, which linears they hold, and nothing else.

That is enough to quantise and to time it. The description does not say which channels belong together, so it offers no
unit, and such a model is never pruned.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from objectives.errors import Unsupported
from objectives.models.anatomy import Family, Stack

LEAST_OUTPUTS = 16
"""A linear with fewer outputs scores for a router or a gate: fewer bits save nothing there, and cost much accuracy."""


def description(base_model: nn.Module) -> Family:
    """Describe the lists of equal blocks, every linear on its own. Raises Unsupported where there is no such list."""
    stacks = tuple(
        Stack(name, linears=tuple(dict.fromkeys(path for block in blocks for path in _linears(block))), depth="")
        for name, blocks in _stacks(base_model)
    )
    if not stacks:
        raise Unsupported(f"{type(base_model).__name__}: no list of equal blocks with linears was found")
    return Family(stacks)


def _stacks(base_model: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """Yield, with their names, the outermost lists of blocks of one class with at least two linears each."""
    inside = "\0"
    for name, module in base_model.named_modules():
        if name.startswith(inside) or not isinstance(module, nn.ModuleList) or not len(module):
            continue
        if len({type(block) for block in module}) == 1 and all(len(list(_linears(block))) > 1 for block in module):
            inside = f"{name}."
            yield name, module


def _linears(block: nn.Module) -> Iterator[str]:
    for path, module in block.named_modules():
        if type(module) is nn.Linear and module.out_features >= LEAST_OUTPUTS:
            yield path
