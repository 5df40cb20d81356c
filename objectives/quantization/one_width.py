"""The base of the quantisers that store all layers in one width: their settings, and all that is not the rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.candidate import Quantizer
from objectives.protocols.optional import BlockStored, Portable
from objectives.quantization.rounding import BlockRounding, ZeroPlace, ZeroPlacing
from objectives.settings import FORBID, Strength

if TYPE_CHECKING:
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel
    from objectives.protocols.running import Device


@settings(frozen=True, kw_only=True, config=FORBID)
class OneWidth(Quantizer, ZeroPlacing, BlockRounding, Portable, BlockStored):
    """Store block weights in ``bits``; 32 is fp32, for reference. A method adds how a layer is rounded.

    ``group_size``: input channels per scale, at 4 bits. ``grid``: ``mse`` clips the range to the least output error;
    ``min_max`` covers every weight. ``zero``: where the grid's zero may lie: anywhere (``free``), on one of its points
    (``whole``) or on the middle one (``middle``), as other runtimes need it (docs/methods/runtimes.md). ``scheme``:
    whether 8 bits round activations too. ``embeddings``: bits of the token embedding and the head. ``simulate``: also
    round to 3 and 2 bits, which no kernel here stores: such a trial has an accuracy, but neither speed nor memory.
    ``predicts``: predict the loss of the rounding, which needs gradients.
    """

    bits: Annotated[Literal[32, 16, 8, 4, 3, 2], Strength(neutral=16, harder=-1, uneven=True)] = 16
    group_size: Literal[32, 64, 128] = 64
    grid: Literal["mse", "min_max"] = "mse"
    zero: ZeroPlace = "free"
    scheme: Literal["w8a8", "weight_only", "fp8"] = "w8a8"
    embeddings: Annotated[Literal[16, 8], Strength(neutral=16, harder=-1, uneven=True)] = 16
    simulate: bool = False
    predicts: bool = True

    scales_inputs: ClassVar[bool] = False
    """True where the codes have a factor for every input."""

    @property
    @override
    def stored(self) -> frozenset[int]:
        return frozenset() if self.simulate else frozenset({self.bits})

    @override
    def with_whole_zeros(self) -> Self:
        return replace(self, zero="whole")

    @override
    def portable(self) -> Self:
        return replace(self, zero="whole", scheme="weight_only")

    @override
    def in_blocks(self, size: Literal[32, 64, 128]) -> Self:
        return replace(self, group_size=size, zero="middle")

    @override
    def stored_in_blocks(self, size: Literal[32, 64, 128]) -> Self:
        return replace(self.in_blocks(size), scheme="weight_only")

    @override
    def quantize_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        from objectives.quantization.layers import WeightFormat, store_

        form = WeightFormat(self.bits, self, self.scheme, self.embeddings, self.simulate)
        store_(model, statistics, device, form, predict=self.predicts)

    @override
    def resize_fake_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        from objectives.quantization.layers import Sketch, WeightFormat, store_

        sketch = Sketch(self.group_size, self.scales_inputs)
        store_(model, statistics.shapes, device, WeightFormat(self.bits, sketch, self.scheme, self.embeddings))

    @override
    def predict(self, statistics: Statistics) -> float:
        from objectives.quantization.sensitivity import predicted_loss

        return predicted_loss(statistics, self.bits, self, self.scheme)
