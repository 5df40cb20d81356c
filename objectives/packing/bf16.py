"""16 bits: W in bfloat16.

On a CPU with native bf16 this is an ordinary linear. Elsewhere torch's bf16 GEMM falls back to a slow loop
above one or two rows, so W is widened to fp32 slice by slice; the products are those of fp32. The weights of block
linears are brought into oneDNN's order once, where bf16 is native (:mod:`objectives.packing.blocked`).
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from typing_extensions import override

from objectives.models import LoadedModel
from objectives.packing.blocked import Blocked, fits
from objectives.packing.capability import cpu_kernels
from objectives.packing.linear import PackedLinear


class Bf16Linear(PackedLinear):
    """A linear in 16 bits. ``weight``: bf16 [out, in], possibly tied to an embedding; None once it is in blocks."""

    weight: nn.Parameter | None
    blocked: Blocked | None = None

    def __init__(self, weight: nn.Parameter, bias: Tensor | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias)
        self.weight = weight

    @property
    @override
    def kernel_rows(self) -> int:
        """Return no limit where bf16 is native; else 2: for more rows torch runs a slow loop."""
        return sys.maxsize if cpu_kernels().bf16 else 2

    @override
    def path(self, rows: int) -> str:
        return self.rule(rows)  # by flags alone, so that compilers can follow

    @classmethod
    def from_linear(cls, source: nn.Linear) -> Bf16Linear:
        """Store ``source`` in 16 bits; a weight already in bf16 is shared, not copied."""
        weight = source.weight
        if weight.dtype != torch.bfloat16:
            weight = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
        return cls(cast("nn.Parameter", weight), None if source.bias is None else source.bias.detach())

    @property
    def dense(self) -> Tensor:
        """Return the weight, bf16 [out, in]; one in blocks is copied."""
        if self.blocked is not None:
            return self.blocked.dense()
        assert self.weight is not None
        return self.weight.detach()

    def block_(self) -> Self:
        """Bring the weight into oneDNN's order, where its sizes fill blocks and bf16 is native; returns self."""
        if self.weight is not None and cpu_kernels().bf16 and fits(*self.weight.shape):
            self.blocked = Blocked(self.weight.detach())
            self.hidden_bytes = self.blocked.nbytes
            self.weight = None
        return self

    def unblock_(self) -> Self:
        """Bring the weight back into rows; returns self."""
        if self.blocked is not None:
            self.weight = nn.Parameter(self.dense, requires_grad=False)
            self.blocked, self.hidden_bytes = None, 0
        return self

    @override
    def kernel(self, rows: Tensor) -> Tensor:
        narrow = rows.to(torch.bfloat16)
        product = linear(narrow, cast("Tensor", self.weight)) if self.blocked is None else self.blocked.product(narrow)
        return product.to(rows.dtype)

    @override
    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.dense[start:stop].to(dtype)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.blocked is not None:
            destination[prefix + "weight"] = self.dense


def block_linears_(model: LoadedModel) -> None:
    """Bring the weights of all block linears in 16 bits into blocks, but those that another module holds too."""
    holders = Counter(id(weight) for part in model.module.modules() for weight in part.parameters(recurse=False))
    for block in model.blocks():
        for path in block.stack.block_linears:
            packed: nn.Module = block.linear(path)
            if isinstance(packed, Bf16Linear) and holders[id(packed.weight)] == 1:
                packed.block_()


def in_rows(model: LoadedModel) -> LoadedModel:
    """Return ``model`` with all weights in rows, as compilers read them: a copy that shares what is not in blocks."""
    if all(getattr(part, "blocked", None) is None for part in model.module.modules()):
        return model
    shared = model.sharing().module
    for part in shared.modules():
        if isinstance(part, Bf16Linear):
            part.unblock_()
    return replace(model, module=shared)
