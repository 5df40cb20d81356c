"""Takes experts apart: transformers keeps all experts of a block in one tensor; here each expert has linears.

Only then can channels of an expert be removed and its weights be packed. The arithmetic is that of the classes' own
loop over the experts that tokens were sent to, bit by bit except for two classes that sum in 32 bits. The router still
decides which tokens go to which expert.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Expert(nn.Module):
    """The linears of one expert, under the names that their tensors had.

    ``gate_up_proj`` writes the gate's channels and then those that it multiplies; GPT-OSS interleaves them.
    """

    def __init__(self, gate_up_proj: nn.Linear, down_proj: nn.Linear) -> None:
        super().__init__()
        self.gate_up_proj = gate_up_proj
        self.down_proj = down_proj


class Experts(nn.Module):
    """The experts of one block, named ``0``, ``1``, ...

    ``halves``: the gate's channels come first and all others after them. ``gate``: the class of transformers without
    its weights, which knows how one half acts on the other.
    """

    def __init__(self, stock: Any) -> None:
        """Take the weights of ``stock`` apart, which loses them."""
        super().__init__()
        self.count = int(stock.num_experts)
        self.halves = bool(stock.is_concatenated)
        for index in range(self.count):
            linears = (_linear(stock, name, index) for name in ("gate_up_proj", "down_proj"))
            self.add_module(str(index), Expert(*linears).train(stock.training))
        for name, _ in list(stock.named_parameters(recurse=False)):
            delattr(stock, name)
        self.gate = stock

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Return the weighted sum [tokens, hidden] of the experts that each token of ``hidden_states`` was sent to.

        ``top_k_index``, ``top_k_weights``: [tokens, k]. An index beyond the last expert stands for none.
        """
        total = torch.zeros_like(hidden_states)
        for index in torch.unique(top_k_index).tolist():
            if index >= self.count:
                continue
            expert: Any = self.get_submodule(str(index))
            place, token = torch.where(top_k_index.t() == index)
            channels = self.gate._apply_gate(expert.gate_up_proj(hidden_states[token]))
            weighted = expert.down_proj(channels) * top_k_weights[token, place, None]
            total.index_add_(0, token, weighted.to(total.dtype))
        return total


def are_fused(module: nn.Module) -> bool:
    """Return whether ``module`` holds gated experts as transformers' ``use_experts_implementation`` describes them."""
    described = hasattr(module, "is_transposed") and hasattr(module, "_apply_gate")
    return described and getattr(module, "has_gate", False) and not getattr(module, "has_post_expert_norm", False)


def _linear(stock: Any, name: str, index: int) -> nn.Linear:
    """Return one expert's part of a tensor [experts, out, in], or [experts, in, out] where the class says so."""
    weight = getattr(stock, name).detach()[index]
    weight = weight.t() if stock.is_transposed else weight
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format), requires_grad=False)
    if stock.has_bias:
        bias = getattr(stock, f"{name}_bias").detach()[index]
        linear.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return linear
