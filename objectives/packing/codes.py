"""Codes: a rounded weight as integers with scales and zeros. Quantisers make them, packed linears store them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """A rounded weight: ``values`` int32 [out, in] in 0..2^bits - 1; ``scale``, ``zero`` [out, in / group].

    ``inputs`` [in]: the factor of each input, applied before the product with the rounded weight; None where a method
    has none.
    """

    values: Tensor
    scale: Tensor
    zero: Tensor
    bits: int
    inputs: Tensor | None = None

    def dequantize(self) -> Tensor:
        """Return the weight that the codes stand for, fp32 [out, in]."""
        out, width = self.values.shape
        groups = self.scale.shape[1]
        centred = self.values.view(out, groups, width // groups).float() - 2 ** (self.bits - 1)
        restored: Tensor = centred * self.scale.unsqueeze(2) + self.zero.unsqueeze(2)
        return restored.view(out, width) if self.inputs is None else restored.view(out, width) * self.inputs

    def rows(self, taken: slice) -> Codes:
        """Return the codes of some output channels."""
        return Codes(self.values[taken], self.scale[taken], self.zero[taken], self.bits, self.inputs)
