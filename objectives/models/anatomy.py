"""The words in which an architecture is described: stacks of blocks, and where each block keeps its projections.

A description is data: paths of ``model.named_modules()`` inside one block, and what counts heads there. Our rows
are in :mod:`objectives.models.families`; an architecture without row gets one that names its linears and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from objectives.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Attention:
    """Attention, as paths inside a block.

    ``key`` and ``value`` may have fewer heads than ``query`` (grouped-query attention). Three equal paths are one
    linear: it writes its parts one after the other, or, ``interleaved``, each KV head with the query heads that read
    it. A ``*`` stands for several alike. ``cross``: key and value read the encoder's output. ``heads``, ``kv_heads``,
    ``channels``: attributes that hold the number of query heads, of KV heads, and of the query's channels.
    ``followers``: modules whose weights have rows for the heads, and about which no pruner decides. ``positions``:
    query and key read position embeddings too. ``prunable``: whether blocks may differ in their heads; ``unless``:
    config fields that forbid it where one of them is set.
    """

    query: str
    key: str
    value: str
    out: str
    cross: bool = False
    positions: bool = False
    heads: tuple[str, ...] = ()
    kv_heads: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    prunable: bool = True
    interleaved: bool = False
    followers: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, str, str]:
        """Return the paths of query, key and value."""
        return self.query, self.key, self.value

    @property
    def shared_inputs(self) -> tuple[tuple[str, ...], ...]:
        """Return the paths grouped by the tensor that their linears read; the first stands for its group."""
        reads: tuple[tuple[str, ...], ...] = (self.reads,)
        if self.cross:
            reads = (self.reads[:1], self.reads[1:])
        elif self.positions:
            reads = (self.reads[:2], self.reads[2:])
        return (*(tuple(dict.fromkeys(paths)) for paths in reads), (self.out,))

    def found_in(self, paths: Iterable[str], config: Any) -> tuple[Attention, ...]:
        """Return one attention for each path among ``paths`` that matches ``out``; none where a model has no such part.

        Followers that are not among ``paths`` are left out; ``config`` decides whether ``unless`` forbids pruning.
        """
        paths = dict.fromkeys(paths)
        tied = any(getattr(config, field, None) for field in self.unless)
        followers = tuple(path for path in self.followers if path in paths)
        found = replace(self, followers=followers, prunable=self.prunable and not tied)
        return tuple(found._starred(star) for star in _stars(self.out, paths))

    def _starred(self, star: str) -> Attention:
        query, key, value, out = (path.replace("*", star) for path in (*self.reads, self.out))
        return replace(self, query=query, key=key, value=value, out=out)


@dataclass(frozen=True)
class Ffn:
    """An FFN, as paths inside a block.

    ``inputs``: every linear that writes the channels, two where the FFN is gated. Where models of one family differ in
    that, ``inputs`` lists all, and the linears that a model has count. Two equal paths are one linear that writes its
    parts one after the other. A ``*`` in a path stands for every expert.
    """

    inputs: tuple[str, ...]
    out: str

    @property
    def shared_inputs(self) -> tuple[tuple[str, ...], ...]:
        """Return the paths grouped by the tensor that their linears read; the first stands for its group."""
        return (tuple(dict.fromkeys(self.inputs)), (self.out,))

    def found_in(self, paths: Iterable[str]) -> tuple[Ffn, ...]:
        """Return one FFN for each path among ``paths`` that matches ``out``; none where a model has no such FFN.

        Inputs that are not among ``paths`` are left out.
        """
        paths = dict.fromkeys(paths)
        named = (
            Ffn(tuple(path.replace("*", star) for path in self.inputs), self.out.replace("*", star))
            for star in _stars(self.out, paths)
        )
        return tuple(replace(ffn, inputs=tuple(path for path in ffn.inputs if path in paths)) for ffn in named)


def _stars(pattern: str, paths: Iterable[str]) -> list[str]:
    """Return, for each of ``paths`` that matches ``pattern``, the text of its star: empty where it has no star."""
    before, star, after = pattern.partition("*")
    return [path[len(before) : len(path) - len(after)] if star else "" for path in paths if fnmatchcase(path, pattern)]


@dataclass(frozen=True)
class Stack:
    """Blocks built alike: where they are (below ``base_model``), and what each of them holds, in forward order.

    ``heads``: the config's field for the number of heads, which gives the head's width where the config does not.
    ``depth``: its field for the number of blocks; empty where no block may go. ``fixed``: blocks that others need.
    ``covers``: a stack that must not have more blocks than this one. ``constants``: attributes of every block that are
    set when a model is loaded. ``copies``: attributes that blocks share and that each needs for itself. ``linears``:
    linears of which nothing is known but that they are there. ``tables``: embeddings, below ``base_model``, whose
    weights are read as they are and not looked up.
    """

    layers: str
    attentions: tuple[Attention, ...] = ()
    ffns: tuple[Ffn, ...] = ()
    heads: str = "num_attention_heads"
    depth: str = "num_hidden_layers"
    fixed: tuple[int, ...] = ()
    covers: str = ""
    constants: tuple[tuple[str, int], ...] = ()
    copies: tuple[str, ...] = ()
    linears: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def shared_inputs(self) -> tuple[tuple[str, ...], ...]:
        """Return the paths of a block's linears grouped by the tensor they read; the first stands for its group."""
        attentions = (paths for part in self.attentions for paths in part.shared_inputs)
        ffns = (paths for part in self.ffns for paths in part.shared_inputs)
        return (*attentions, *ffns, *((path,) for path in self.linears))

    @property
    def block_linears(self) -> tuple[str, ...]:
        """Return the paths of all linears of a block, in the order of the forward pass."""
        return tuple(path for paths in self.shared_inputs for path in paths)

    def head_dim(self, config: Any) -> int:
        """Return the channels per attention head; 0 where no attention is described."""
        if not self.attentions:
            return 0
        return int(getattr(config, "head_dim", None) or config.hidden_size // getattr(config, self.heads))

    def found_in(self, base_model: nn.Module) -> Stack:
        """Return this stack with the parts that any block of the model has.

        Raises Unsupported where the model has no such stack.
        """
        try:
            blocks: Any = base_model.get_submodule(self.layers)
        except AttributeError:
            raise Unsupported(
                f"model.head: loaded like this, {type(base_model).__name__} has no {self.layers}"
            ) from None
        paths = dict.fromkeys(name for block in blocks for name, _ in block.named_modules())
        return replace(
            self,
            attentions=tuple(
                attention for part in self.attentions for attention in part.found_in(paths, base_model.config)
            ),
            ffns=tuple(ffn for part in self.ffns for ffn in part.found_in(paths)),
            tables=tuple(path for path in self.tables if _has(base_model, path)),
        )

    def of(self, block: nn.Module) -> Stack:
        """Return this stack with the parts that ``block`` has.

        Blocks of one stack may differ: in some models a few have an FFN and the others experts.
        """
        return replace(
            self,
            attentions=tuple(part for part in self.attentions if _has(block, part.out)),
            ffns=tuple(part for part in self.ffns if _has(block, part.out)),
            linears=tuple(path for path in self.linears if _has(block, path)),
        )


def _has(block: nn.Module, path: str) -> bool:
    try:
        block.get_submodule(path)
    except AttributeError:
        return False
    return True


@dataclass(frozen=True)
class Family:
    """One architecture: its stacks, an encoder's before the decoder's that reads it."""

    stacks: tuple[Stack, ...]

    def found_in(self, base_model: nn.Module) -> Family:
        """Return the family as ``base_model`` is built. Raises Unsupported where a stack is missing."""
        return Family(tuple(stack.found_in(base_model) for stack in self.stacks))
