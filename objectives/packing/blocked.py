"""A bf16 weight in the blocks that oneDNN multiplies: brought into that order once, not at every product.

The sums are the same to the bit; one row takes two thirds to nine tenths of the time, 256 rows 97 % (docs/log.md). Only
oneDNN reads such a tensor, so what looks at weights asks for them in rows (:meth:`Blocked.dense`).
"""

from __future__ import annotations

from functools import cache
from typing import Self

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.nn.functional import linear

FILLED = 1.1
"""The most bytes that blocks may take, over those of the rows: the last ones are filled up with zeros."""


class Blocked:
    """A bf16 weight [out, in] in blocks. Nothing changes it, so copies of a model share it.

    ``tensor``: opaque to all operators but oneDNN's; of a weight without values, that weight. ``nbytes``: of the
    blocks.
    """

    def __init__(self, weight: Tensor) -> None:
        is_fake = isinstance(weight, FakeTensor)
        self.tensor: Tensor = weight if is_fake else torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.nbytes = blocked_bytes(*weight.shape) if is_fake else int(torch.ops.mkldnn._nbytes(self.tensor))

    def product(self, rows: Tensor) -> Tensor:
        """Multiply ``rows`` bf16 [m, in] by the weight: [m, out]."""
        if isinstance(self.tensor, FakeTensor):
            return linear(rows, self.tensor)
        if rows.requires_grad:  # oneDNN's operator has no derivative
            return linear(rows, self.dense())
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.tensor, None, "none", [], "")
        return product

    def dense(self) -> Tensor:
        """Return the weight in rows, bf16 [out, in]; the very values that it was made of."""
        return self.tensor if isinstance(self.tensor, FakeTensor) else self.tensor.to_dense()

    def __deepcopy__(self, memo: object) -> Self:
        """Return itself."""
        return self


@cache
def blocked_bytes(outputs: int, inputs: int) -> int:
    """Return the bytes of a weight in blocks, whose sizes are oneDNN's choice: by processor and by shape."""
    with unset_fake_temporarily():
        return Blocked(torch.zeros(outputs, inputs, dtype=torch.bfloat16)).nbytes


def fits(outputs: int, inputs: int) -> bool:
    """Return whether there are blocks here, and the sizes of a weight nearly fill whole ones."""
    return has_blocks() and blocked_bytes(outputs, inputs) <= FILLED * 2 * outputs * inputs


@cache
def has_blocks() -> bool:
    """Return whether oneDNN's operators are there and run here, and give weight and product back to the bit."""
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    generator = torch.Generator().manual_seed(0)
    try:
        with unset_fake_temporarily():
            weight, rows = (torch.randn(size, 64, generator=generator).to(torch.bfloat16) for size in (128, 5))
            blocked = Blocked(weight)
            return torch.equal(blocked.dense(), weight) and torch.equal(blocked.product(rows), linear(rows, weight))
    except RuntimeError:  # the processor has bf16 instructions, and torch was told not to use them
        return False
