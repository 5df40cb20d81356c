"""Where an architecture keeps its projections, as data.

Pruning needs to know, for every block, which linears read the residual stream, which produce the channels
that may go, and which consume them. That is all a family is. To add one, add a row: the paths are those of
``model.named_modules()`` inside one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from objectives.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Family:
    """Paths of one architecture, relative to ``base_model`` (``layers``) or to one block (the rest).

    ``key`` and ``value`` may have fewer heads than ``query`` (grouped-query attention). ``ffn_in`` lists every
    linear that writes the FFN channels: two for gated FFNs.
    """

    layers: str
    query: str
    key: str
    value: str
    attention_out: str
    ffn_in: tuple[str, ...]
    ffn_out: str

    @property
    def block_linears(self) -> tuple[str, ...]:
        """All linears of a block, in the order of the forward pass."""
        return (self.query, self.key, self.value, self.attention_out, *self.ffn_in, self.ffn_out)

    @property
    def shared_inputs(self) -> tuple[tuple[str, ...], ...]:
        """Linears grouped by the tensor they read; the first stands for its group."""
        return ((self.query, self.key, self.value), (self.attention_out,), self.ffn_in, (self.ffn_out,))


_LLAMA = Family(
    layers="layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_out="self_attn.o_proj",
    ffn_in=("mlp.gate_proj", "mlp.up_proj"),
    ffn_out="mlp.down_proj",
)
_BERT = Family(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    ffn_in=("intermediate.dense",),
    ffn_out="output.dense",
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
    def groups(self) -> int:
        """Number of key/value heads: the unit in which attention is pruned."""
        return self.linear(self.family.key).out_features // self.head_dim

    @property
    def group_width(self) -> int:
        """Query channels per key/value head."""
        return self.linear(self.family.query).out_features // self.groups

    @property
    def channels(self) -> int:
        """Width of the FFN."""
        return self.linear(self.family.ffn_out).in_features
