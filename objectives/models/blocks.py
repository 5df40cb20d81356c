"""A transformer block of a loaded model: its linears by role, and the sets of channels that may go."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, cast

from objectives.models.anatomy import Attention, Ffn, Stack

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["attention", "ffn"]


@dataclass(frozen=True)
class Unit:
    """``count`` sets of channels of one block, any of which may be removed.

    The linear at ``consumer`` reads ``width`` channels of each set; every one of ``producers``, (path, rows), writes a
    set with that many of its output rows. A path that comes several times is one linear whose parts follow each other,
    ``count`` times ``rows`` each. ``followers`` are like producers, but no linears that anything is decided about. A
    set of ``attention`` is a KV head with the query heads that read it.
    """

    kind: Kind
    block: str
    consumer: str
    producers: tuple[tuple[str, int], ...]
    width: int
    count: int
    parameters: int
    """Weights of one set, biases left out."""
    attributes: tuple[tuple[str, int], ...] = ()
    """Attributes of the block that count something, with what one set adds to them."""
    followers: tuple[tuple[str, int], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Return the unit's name in the whole model: (block, consumer)."""
        return self.block, self.consumer


@dataclass(frozen=True)
class Block:
    """One transformer block with its linears by role."""

    name: str
    module: nn.Module
    stack: Stack
    head_dim: int

    def linear(self, path: str) -> nn.Linear:
        """Return the linear at ``path``; a packed one has ``in_features`` and ``out_features`` too."""
        return cast("nn.Linear", self.module.get_submodule(path))

    def set_attribute_(self, path: str, value: int) -> None:
        """Set a plain attribute of the block or of something inside it."""
        owner, _, name = path.rpartition(".")
        setattr(attrgetter(owner)(self.module) if owner else self.module, name, value)

    @property
    def parameters(self) -> int:
        """Count the weights of all linears as they are now, also of those that no unit holds; biases are left out."""
        linears = [self.linear(path) for path in self.stack.block_linears]
        return sum(linear.in_features * linear.out_features for linear in linears)

    @property
    def units(self) -> tuple[Unit, ...]:
        """Return the units of the block as it is now: what can be pruned."""
        attentions = tuple(self._groups(attention) for attention in self.stack.attentions if attention.prunable)
        return (*attentions, *(self._ffn(ffn) for ffn in self.stack.ffns))

    def _groups(self, attention: Attention) -> Unit:
        channels = self.linear(attention.out).in_features
        fused = attention.query == attention.key
        keys = self.linear(attention.key).out_features
        count = ((keys - channels) // 2 if fused else keys) // self.head_dim
        width = channels // count
        parts = (width, self.head_dim, self.head_dim)
        written = tuple(zip(attention.reads, parts, strict=True))
        if attention.interleaved:
            written = ((attention.query, sum(parts)),)
        attributes = (
            *((path, width // self.head_dim) for path in attention.heads),
            *((path, 1) for path in attention.kv_heads),
            *((path, width) for path in attention.channels),
        )
        followers = tuple((path, len(self.linear(path).weight) // count) for path in attention.followers)
        return self._unit("attention", attention.out, written, width, attributes, followers)

    def _ffn(self, ffn: Ffn) -> Unit:
        return self._unit("ffn", ffn.out, tuple((path, 1) for path in ffn.inputs), 1)

    def _unit(
        self,
        kind: Kind,
        consumer: str,
        producers: tuple[tuple[str, int], ...],
        width: int,
        attributes: tuple[tuple[str, int], ...] = (),
        followers: tuple[tuple[str, int], ...] = (),
    ) -> Unit:
        reader = self.linear(consumer)
        parameters = sum(rows * self.linear(path).in_features for path, rows in producers)
        parameters += width * reader.out_features
        count = reader.in_features // width
        return Unit(kind, self.name, consumer, producers, width, count, parameters, attributes, followers)
