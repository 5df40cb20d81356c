"""Round to nearest, on a grid clipped where that lowers the output error.

8 bits is W8A8: int8 per output channel, activations rounded per token when the layer runs. 4 bits is weight-only
with a scale and zero per group of input channels. A layer whose width no group divides falls back to a smaller
group, then to 16 bits; both are noted with the trial. Embeddings, heads and norms stay in 16 bits.

Grid search by shrinking the range: Shao et al., OmniQuant, https://arxiv.org/abs/2308.13137 (learned there).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID

if TYPE_CHECKING:
    from torch import nn

    from objectives.calibration import Moment, Statistics
    from objectives.models import LoadedModel
    from objectives.quantization.grid import Codes
    from objectives.types import Device

_CLIPPED = tuple(1.0 - 0.05 * step for step in range(9))


@settings(frozen=True, kw_only=True, config=FORBID)
class RoundToNearest:
    """Store block weights in ``bits``.

    ``group_size``: input channels per scale, at 4 bits. ``grid``: ``mse`` clips the range to the least output
    error; ``min_max`` covers every weight.
    """

    bits: Literal[16, 8, 4] = 16
    group_size: Literal[32, 64, 128] = 64
    grid: Literal["mse", "min_max"] = "mse"

    def quantize_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """See ``objectives.types.Quantizer``."""
        from objectives.errors import Unsupported

        if self.bits not in device.bits:
            raise Unsupported(f"{self.bits} bits on {device.name}: choose from {sorted(device.bits)}")
        for block in model.blocks():
            for path in block.family.block_linears:
                linear = block.linear(path)
                moment = statistics.moments.get((block.name, path)) if self.bits < 8 else None
                kept = model.kept_inputs.get((block.name, path))
                if moment is not None and kept is not None:
                    moment = moment.select(kept)
                codes = self._codes(linear, moment)
                bits = self.bits if codes is not None or self.bits != 4 else 16
                model.notes.extend(f"{block.name}.{path}: {what}" for what in self._not_as_asked(linear, codes))
                block.module.set_submodule(path, device.pack(linear, bits, codes))
        device.place_(model)

    def _codes(self, linear: nn.Linear, moment: Moment | None) -> Codes | None:
        """Codes of a 4-bit layer, or None where this width or bit width has none."""
        import torch

        from objectives.quantization.grid import round_to_grid

        sizes = [size for size in (128, 64, 32) if size <= self.group_size and linear.in_features % size == 0]
        if self.bits != 4 or not sizes or linear.out_features % 16:
            return None
        importance = torch.ones(linear.in_features) if moment is None else moment.second.diagonal()
        shrinks = _CLIPPED if self.grid == "mse" else (1.0,)
        return round_to_grid(linear.weight, importance, self.bits, sizes[0], shrinks)

    def _not_as_asked(self, linear: nn.Linear, codes: Codes | None) -> Iterator[str]:
        """What to note with the trial about a 4-bit layer."""
        if self.bits != 4:
            return
        inputs, outputs = linear.in_features, linear.out_features
        if codes is None:
            yield f"{inputs} inputs x {outputs} outputs fit no 4-bit kernel, kept in 16 bits"
        elif (size := inputs // codes.scale.shape[1]) != self.group_size:
            yield f"{inputs} inputs fit no group of {self.group_size}, groups of {size} instead"
