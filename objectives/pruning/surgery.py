"""Cutting: removes KV groups and FFN channels from a block by slicing its linears in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from objectives.families import Block


def keep_outputs_(linear: nn.Linear, rows: Tensor) -> None:
    """Keep the output channels ``rows`` of a linear."""
    linear.weight = nn.Parameter(linear.weight[rows].contiguous(), requires_grad=False)
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias[rows].contiguous(), requires_grad=False)
    linear.out_features = len(rows)


def set_inputs_(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give a consumer its new weight [out, kept inputs] and, when it has one, bias."""
    linear.weight = nn.Parameter(weight.to(linear.weight.dtype).contiguous(), requires_grad=False)
    if linear.bias is not None and bias is not None:
        linear.bias = nn.Parameter(bias.to(linear.bias.dtype).contiguous(), requires_grad=False)
    linear.in_features = weight.shape[1]


def group_channels(groups: Tensor, width: int) -> Tensor:
    """Channel indices of the given groups, each ``width`` channels wide."""
    return (groups[:, None] * width + torch.arange(width)[None, :]).reshape(-1)


def keep_groups_(block: Block, groups: Tensor) -> None:
    """Keep these KV heads, with the query heads that read them. The consumer is left to the caller."""
    family, width = block.family, block.group_width
    keep_outputs_(block.linear(family.query), group_channels(groups, width))
    for path in (family.key, family.value):
        keep_outputs_(block.linear(path), group_channels(groups, block.head_dim))


def keep_channels_(block: Block, channels: Tensor) -> None:
    """Keep these FFN channels. The consumer is left to the caller."""
    for path in block.family.ffn_in:
        keep_outputs_(block.linear(path), channels)
