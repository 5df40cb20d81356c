"""Rounds to nearest, on a grid that is clipped where that lowers the output error.

8 bits is W8A8: int8 per output channel, activations rounded per token when the layer runs. 4 bits is weight-only
with a scale and zero per group of input channels. A layer whose width no group divides falls back to a smaller
group, then to 16 bits; both are noted with the trial. Embeddings and heads have bits of their own; norms keep 16.

Grid search by shrinking the range: Shao et al., OmniQuant, https://arxiv.org/abs/2308.13137 (learned there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.quantization.one_width import OneWidth
from objectives.settings import FORBID

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Moment
    from objectives.packing.codes import Codes


@settings(frozen=True, kw_only=True, config=FORBID)
class RoundToNearest(OneWidth):
    """Store block weights in ``bits``, each rounded by itself."""

    @override
    def round(self, weight: Tensor, moment: Moment, bits: int, group_size: int) -> Codes:
        """Round ``weight`` [out, in] on the grid of least error, weighted by E[x^2] of each input."""
        from objectives.quantization.grid import SHRINKS, round_to_grid

        return round_to_grid(weight, moment.second.diagonal(), bits, group_size, SHRINKS[self.grid], self.zero)
