"""Where an architecture keeps its projections, as data.

Pruning needs to know, for every block, which linears read the residual stream, which produce the channels
that may go, and which consume them. That is all a family is. To add one, add a row: the paths are those of
``model.named_modules()`` inside one block. Pruners see only the :class:`Unit` of a block, whatever the family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from objectives.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn


Kind = Literal["attention", "ffn"]


@dataclass(frozen=True)
class Attention:
    """Paths inside a block. ``key`` and ``value`` may have fewer heads than ``query`` (grouped-query attention)."""

    query: str
    key: str
    value: str
    out: str


@dataclass(frozen=True)
class Ffn:
    """Paths inside a block. ``inputs``: every linear that writes the channels, two where the FFN is gated."""

    inputs: tuple[str, ...]
    out: str


@dataclass(frozen=True)
class Family:
    """One architecture: where its blocks are (below ``base_model``), and what each of them holds, in forward order."""

    layers: str
    attention: Attention
    ffn: Ffn

    @property
    def shared_inputs(self) -> tuple[tuple[str, ...], ...]:
        """Linears of a block grouped by the tensor they read; the first stands for its group."""
        attention = self.attention
        reads = (attention.query, attention.key, attention.value)
        return (reads, (attention.out,), self.ffn.inputs, (self.ffn.out,))

    @property
    def block_linears(self) -> tuple[str, ...]:
        """All linears of a block, in the order of the forward pass."""
        return tuple(path for paths in self.shared_inputs for path in paths)


_LLAMA = Family(
    "layers",
    Attention("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    Ffn(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
)
_BERT = Family(
    "encoder.layer",
    Attention("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    Ffn(("intermediate.dense",), "output.dense"),
)

FAMILIES = {"llama": _LLAMA, "mistral": _LLAMA, "qwen2": _LLAMA, "bert": _BERT}
"""By ``config.model_type``."""


def family_of(model_type: str) -> Family:
    """The family of a ``config.model_type``; raises Unsupported naming those known."""
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise Unsupported(
            f"model type {model_type!r} is not described yet; known: {known}. "
            "Add a row to objectives/families.py to describe it."
        )
    return FAMILIES[model_type]


@dataclass(frozen=True)
class Unit:
    """``count`` sets of channels of one block, any of which may be removed.

    The linear at ``consumer`` reads ``width`` channels of each set; every one of ``producers``, (path, rows), writes a
    set with that many of its output rows. A set of ``attention`` is a KV head with the query heads that read it.
    """

    kind: Kind
    block: str
    consumer: str
    producers: tuple[tuple[str, int], ...]
    width: int
    count: int
    parameters: int
    """Weights of one set, biases left out."""

    @property
    def key(self) -> tuple[str, str]:
        """Name in the whole model: (block, consumer)."""
        return self.block, self.consumer


@dataclass(frozen=True)
class Block:
    """One transformer block with its linears by role."""

    name: str
    module: nn.Module
    family: Family
    head_dim: int

    def linear(self, path: str) -> nn.Linear:
        """The linear at ``path``; packed linears have the same ``in_features`` and ``out_features``."""
        return cast("nn.Linear", self.module.get_submodule(path))

    @property
    def units(self) -> tuple[Unit, ...]:
        """What can be pruned, as it is now."""
        attention, ffn = self.family.attention, self.family.ffn
        groups = self.linear(attention.key).out_features // self.head_dim
        query = self.linear(attention.query).out_features // groups
        written = ((attention.query, query), (attention.key, self.head_dim), (attention.value, self.head_dim))
        return (
            self._unit("attention", attention.out, written),
            self._unit("ffn", ffn.out, tuple((path, 1) for path in ffn.inputs)),
        )

    def _unit(self, kind: Kind, consumer: str, producers: tuple[tuple[str, int], ...]) -> Unit:
        width, count = producers[0][1], self.linear(producers[0][0]).out_features // producers[0][1]
        parameters = sum(rows * self.linear(path).in_features for path, rows in producers)
        parameters += width * self.linear(consumer).out_features
        return Unit(kind, self.name, consumer, producers, width, count, parameters)
