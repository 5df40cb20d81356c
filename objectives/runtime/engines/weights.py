"""Reads the matrices of a packed model as they are stored, in numpy; adapters write them into the graphs of engines.

A matrix is found by the name of its module. Codes are those that our quantisers chose; nothing is rounded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.embedding import Int8Embedding
from objectives.packing.fp32 import Fp32Linear
from objectives.packing.int4 import Int4Linear, from_pairs
from objectives.packing.int8 import Int8Linear, Int8WeightLinear

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Dense:
    """A matrix of floats. ``values``: fp32 [out, in], to be stored in ``bits``: 32 or 16."""

    values: Floats
    bits: int

    def dequantized(self) -> Floats:
        """Return the weight, fp32 [out, in]."""
        return self.values


@dataclass(frozen=True)
class Rounded:
    """A matrix of codes. The weight is (codes - zeros) * scales, times ``inputs`` [in] where there are some.

    ``codes`` [out, in]: int8 in -127..127 at 8 ``bits``, uint8 in 0..15 at 4; ``scales``: fp32 [out, groups];
    ``zeros``: uint8 [out, groups] at 4 bits, else None.
    """

    codes: NDArray[Any]
    scales: Floats
    zeros: NDArray[np.uint8] | None
    bits: int
    inputs: Floats | None = None

    @property
    def nbytes(self) -> int:
        """Return the bytes of codes, fp32 scales and zeros."""
        zeros = 0 if self.zeros is None else self.zeros.size
        return (self.codes.size + zeros) * self.bits // 8 + self.scales.nbytes

    @property
    def group_size(self) -> int:
        """Return how many inputs share a scale."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    def dequantized(self) -> Floats:
        """Return the weight, fp32 [out, in]."""
        outputs, inputs = self.codes.shape
        groups = self.codes.reshape(outputs, self.scales.shape[1], -1).astype(np.float32)
        if self.zeros is not None:
            groups = groups - self.zeros[..., None]
        weight: Floats = (groups * self.scales[..., None]).reshape(outputs, inputs)
        return weight if self.inputs is None else weight * self.inputs


Stored = Dense | Rounded


def matrices(model: LoadedModel) -> Iterator[tuple[str, Stored]]:
    """Yield the matrix of every linear and embedding of ``model`` with its module's name.

    A matrix that several modules share comes once, with the first name. Raises Unsupported for one that is stored as no
    engine could take it.
    """
    seen: set[int] = set()
    for name, module in model.module.named_modules():
        key = _storage(module)
        if key is not None and key not in seen:
            seen.add(key)
            yield name, _stored(name, module)


def owners(model: LoadedModel) -> dict[str, str]:
    """Return, by the name of every linear and embedding, the name under which :func:`matrices` yields its weight."""
    first: dict[int, str] = {}
    names = {}
    for name, module in model.module.named_modules():
        key = _storage(module)
        if key is not None:
            names[name] = first.setdefault(key, name)
    return names


def block_linears(model: LoadedModel) -> set[str]:
    """Return the names of the modules that pruners and quantisers work on."""
    blocks = {id(block.linear(path)) for block in model.blocks() for path in block.stack.block_linears}
    return {name for name, module in model.module.named_modules() if id(module) in blocks}


def sizes(model: LoadedModel, least_bits: int = 0) -> dict[str, int]:
    """Return the bytes of every matrix, scales included, by name.

    ``least_bits``: to which a matrix of floats is widened that has fewer.
    """
    return {
        name: weight.values.size * max(weight.bits, least_bits) // 8 if isinstance(weight, Dense) else weight.nbytes
        for name, weight in matrices(model)
    }


def is_matrix(module: nn.Module) -> bool:
    """Return whether :func:`matrices` counts ``module``."""
    return _storage(module) is not None


def _storage(module: nn.Module) -> int | None:
    """Return a number that tells one weight from another; None for modules that have none."""
    if isinstance(module, (Int8Embedding, Int8WeightLinear)):
        return module.codes.data_ptr()
    if type(module) is nn.Linear or isinstance(module, (nn.Embedding, Fp32Linear)):
        return module.weight.data_ptr()
    if isinstance(module, Bf16Linear) and module.weight is not None:
        return module.weight.data_ptr()
    return id(module) if isinstance(module, (Int4Linear, Int8Linear, Bf16Linear)) else None


def _stored(name: str, module: nn.Module) -> Stored:
    if type(module) is nn.Linear or isinstance(module, (nn.Embedding, Bf16Linear, Fp32Linear)):
        weight = module.dense if isinstance(module, Bf16Linear) else module.weight.detach()
        return Dense(weight.float().numpy(), 32 if weight.dtype == torch.float32 else 16)
    if isinstance(module, (Int8Embedding, Int8WeightLinear, Int8Linear)):
        return Rounded(module.codes.numpy(), module.scale.float().unsqueeze(1).numpy(), None, 8)
    assert isinstance(module, Int4Linear)
    return _four_bits(name, module)


def _four_bits(name: str, module: Int4Linear) -> Rounded:
    scale, zero = (part.t().float() for part in module.scale_zero.unbind(dim=2))
    whole = 8 - zero / scale
    zeros = whole.round()
    if (whole - zeros).abs().max() > _WHOLE or zeros.min() < 0 or zeros.max() > 15:
        raise Unsupported(f"{name}: its zero points are no whole numbers of steps: quantization.zero=whole")
    codes = from_pairs(module.codes).to(torch.uint8)
    inputs = None if module.inputs is None else module.inputs.float().numpy()
    return Rounded(codes.numpy(), _plain(scale), zeros.to(torch.uint8).contiguous().numpy(), 4, inputs)


_WHOLE = 0.05
"""The largest distance of a zero point from a whole step: bf16 keeps eight binary digits of up to eight steps."""


def _plain(values: Tensor) -> Floats:
    plain: Floats = values.contiguous().numpy()
    return plain
