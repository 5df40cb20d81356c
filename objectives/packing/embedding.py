"""8-bit embeddings: one scale per token. A head that is tied to the embedding multiplies by the same integers.

In small models the vocabulary outweighs the blocks once these are quantised: of SmolLM2-135M's 134.5 M weights 28.3 M
are embeddings, 57 of 120 MB when the blocks have 4 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from objectives.packing.capability import cpu_kernels
from objectives.packing.int8 import Int8WeightLinear
from objectives.packing.int8_rounding import round_symmetric

if TYPE_CHECKING:
    from objectives.models import LoadedModel


class Int8Embedding(nn.Module):
    """An embedding in 8 bits. ``codes``: int8 [tokens, width]; ``scale``: fp32 [tokens]; ``factor``: of all vectors."""

    codes: Tensor
    scale: Tensor

    def __init__(self, codes: Tensor, scale: Tensor, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up the vectors [..., width] of ``ids`` [...], in the CPU's compute dtype."""
        vectors = self.codes[ids].float().mul_(self.scale[ids].unsqueeze(-1)).mul_(self.factor)
        return vectors.to(cpu_kernels().compute_dtype)

    def extra_repr(self) -> str:
        """Describe the shapes for ``print(model)``."""
        return f"{self.codes.shape[0]}, {self.codes.shape[1]}"


def pack_embeddings_(model: LoadedModel) -> None:
    """Store the token embedding and the head in 8 bits, each once however many modules use it."""
    module = model.module
    table, head = module.get_input_embeddings().weight, module.get_output_embeddings()
    codes, scale = round_symmetric(table.detach())
    codes, scale = codes.to(torch.int8), scale.squeeze(1)
    for name, part in list(module.named_modules()):
        if getattr(part, "weight", None) is table:
            replace_(module, name, _sharing(part, codes, scale))
        elif part is head:
            bias = None if head.bias is None else head.bias.detach()
            replace_(module, name, Int8WeightLinear.from_weight(head.weight.detach(), bias))


def _sharing(part: nn.Module, codes: Tensor, scale: Tensor) -> nn.Module:
    if isinstance(part, nn.Embedding):
        return Int8Embedding(codes, scale, _factor(part))
    bias = part.bias if isinstance(part.bias, Tensor) else None
    return Int8WeightLinear(codes, scale, None if bias is None else bias.detach())


def _factor(embedding: nn.Embedding) -> float:
    """Return the factor by which ``embedding`` multiplies its vectors; BART's and Gemma 3's classes have one."""
    if isinstance(embedding.weight.data, FakeTensor):
        return 1.0
    row = int(embedding.weight.float().norm(dim=1).argmax())
    vector = embedding.weight[row].float()
    return float(embedding(torch.tensor([row]))[0].float() @ vector / (vector @ vector))


def replace_(module: nn.Module, name: str, packed: nn.Module) -> None:
    """Put ``packed`` at ``name`` and wherever else the same module is used."""
    old = module.get_submodule(name)
    for other, part in list(module.named_modules(remove_duplicate=False)):
        if part is old:
            module.set_submodule(other, packed)
