"""The words in which an architecture is described: stacks of blocks, and where each block keeps its projections.

A description is data: paths of ``model.named_modules()`` inside one block, and what counts heads there. The rows that
we have are in :mod:`objectives.families`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from objectives.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Attention:
    """Paths inside a block. ``key`` and ``value`` may have fewer heads than ``query`` (grouped-query attention).

    Equal paths are one linear that writes its parts one after the other, all of one size. ``cross``: key and value
    read the encoder's output. ``heads``, ``channels``: attributes that hold the number of query heads, and of their
    channels. ``prunable``: whether blocks may differ in their heads.
    """

    query: str
    key: str
    value: str
    out: str
    cross: bool = False
    heads: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    prunable: bool = True

    @property
    def reads(self) -> tuple[str, str, str]:
        """The paths of query, key and value."""
        return self.query, self.key, self.value

    @property
    def shared_inputs(self) -> tuple[tuple[str, ...], ...]:
        """See :attr:`Stack.shared_inputs`."""
        reads = (self.reads[:1], self.reads[1:]) if self.cross else (self.reads,)
        return (*(tuple(dict.fromkeys(paths)) for paths in reads), (self.out,))


@dataclass(frozen=True)
class Ffn:
    """Paths inside a block. ``inputs``: every linear that writes the channels, two where the FFN is gated.

    Where models of one family differ in that, ``inputs`` lists all, and those that are there count.
    """

    inputs: tuple[str, ...]
    out: str


@dataclass(frozen=True)
class Stack:
    """Blocks built alike: where they are (below ``base_model``), and what each of them holds, in forward order.

    ``heads``: the config's field for the number of heads, which gives the head's width where the config does not.
    ``depth``: its field for the number of blocks. ``fixed``: blocks that others need. ``covers``: a stack that must not
    have more blocks than this one. ``constants``: attributes of every block that are set when a model is loaded.
    """

    layers: str
    attentions: tuple[Attention, ...]
    ffn: Ffn
    heads: str = "num_attention_heads"
    depth: str = "num_hidden_layers"
    fixed: tuple[int, ...] = ()
    covers: str = ""
    constants: tuple[tuple[str, int], ...] = ()

    @property
    def shared_inputs(self) -> tuple[tuple[str, ...], ...]:
        """Linears of a block grouped by the tensor they read; the first stands for its group."""
        attentions = tuple(paths for attention in self.attentions for paths in attention.shared_inputs)
        return (*attentions, self.ffn.inputs, (self.ffn.out,))

    @property
    def block_linears(self) -> tuple[str, ...]:
        """All linears of a block, in the order of the forward pass."""
        return tuple(path for paths in self.shared_inputs for path in paths)

    def head_dim(self, config: Any) -> int:
        """Channels per attention head."""
        return int(getattr(config, "head_dim", None) or config.hidden_size // getattr(config, self.heads))

    def found_in(self, base_model: nn.Module) -> Stack:
        """This stack with the FFN inputs that the model has. Raises Unsupported where the model has no such stack."""
        try:
            first = base_model.get_submodule(f"{self.layers}.0")
        except AttributeError:
            raise Unsupported(
                f"model.head: loaded like this, {type(base_model).__name__} has no {self.layers}"
            ) from None
        there = {name for name, _ in first.named_modules()}
        return replace(self, ffn=replace(self.ffn, inputs=tuple(path for path in self.ffn.inputs if path in there)))


@dataclass(frozen=True)
class Family:
    """One architecture: its stacks, an encoder's before the decoder's that reads it."""

    stacks: tuple[Stack, ...]

    def found_in(self, base_model: nn.Module) -> Family:
        """As ``base_model`` is built. Raises Unsupported where a stack is missing."""
        return Family(tuple(stack.found_in(base_model) for stack in self.stacks))
