"""The linears of a model's blocks, grouped by the tensor they read.

Query, key and value, or gate and up, are treated as one tall matrix, since their inputs, hence the curvature of their
errors, are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objectives.models import LoadedModel
from objectives.models.blocks import Block


@dataclass(frozen=True)
class Layer:
    """Linears of one block that read the same tensor; they share their bits."""

    block: Block
    paths: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        """Return the layer's name in the whole model: (block, first path)."""
        return self.block.name, self.paths[0]

    @property
    def linears(self) -> list[nn.Linear]:
        """Return the linears, in the order of the paths."""
        return [self.block.linear(path) for path in self.paths]

    @property
    def weight(self) -> Tensor:
        """Return the weights of all linears, one below the other, fp32 [sum of outputs, in]."""
        return torch.cat([linear.weight.float() for linear in self.linears])

    def digest(self) -> bytes:
        """Return a hash of the weights as they are now; it differs between two prunings of the same layer."""
        digest = hashlib.blake2b(digest_size=16)
        for linear in self.linears:
            digest.update(linear.weight.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.digest()

    @property
    def parameters(self) -> int:
        """Count the weights, biases left out."""
        return sum(linear.weight.numel() for linear in self.linears)


def layers_of(model: LoadedModel) -> Iterator[Layer]:
    """Yield all block linears, grouped by the tensor that they read."""
    for block in model.blocks():
        for paths in block.stack.shared_inputs:
            yield Layer(block, paths)
