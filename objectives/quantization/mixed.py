"""Mixed precision: every layer gets the bits it needs, under a budget of average bits.

Each layer is rounded once in every width, and the loss of its error is predicted (`sensitivity`); the assignment of
least predicted loss within the budget is an exact knapsack. So ``bits`` may be 5.0: some layers get 4 bits, others 8.
Linears that read the same tensor share a width.

As in Dong et al., HAWQ-V2, https://arxiv.org/abs/1911.03852, with the K-FAC curvature in place of a Hessian trace.
"""

from __future__ import annotations

from dataclasses import field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, InstanceOf
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import Unsupported
from objectives.protocols.candidate import Quantizer
from objectives.protocols.optional import BlockStored, Portable
from objectives.quantization.gptq import Gptq
from objectives.quantization.rounding import BlockRounding, Rounding, ZeroPlacing
from objectives.settings import Strength

if TYPE_CHECKING:
    from objectives.calibration.statistics import Statistics
    from objectives.knapsack import Options
    from objectives.models import LoadedModel
    from objectives.models.layers import Layer
    from objectives.protocols.running import Device
    from objectives.quantization.sensitivity import Rounded

Width = Literal[16, 8, 4, 3, 2]

_OWN = ("bits", "scheme", "embeddings", "simulate", "recollect")
"""Settings of a rounding that mixed precision has itself."""


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Mixed(Quantizer, Portable, BlockStored):
    """Store block weights in ``bits`` on average, each layer in one of ``widths`` (or 16).

    ``budget``: what the average counts: ``codes`` alone, or all that is ``stored``, scales and zeros too, so that a
    budget in bytes is 8 * bytes / block weights. ``rounding``: how a width below 8 is rounded; what this class sets
    itself must be left as it is there. ``scheme``: what 8 bits means. ``embeddings``: bits of the token embedding and
    the head. ``simulate``: also widths that no kernel stores, accuracy only.
    """

    bits: Annotated[float, Field(strict=True, ge=2, le=16), Strength(neutral=16, harder=-1, uneven=True)] = 16.0
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (8, 4)
    budget: Literal["codes", "stored"] = "codes"
    rounding: InstanceOf[Rounding] = field(default_factory=Gptq)
    scheme: Literal["w8a8", "weight_only", "fp8"] = "w8a8"
    embeddings: Annotated[Literal[16, 8], Strength(neutral=16, harder=-1, uneven=True)] = 16
    simulate: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError where ``rounding`` changes a setting that this class has itself."""
        rounding: Any = self.rounding
        for setting in fields(rounding) if is_dataclass(rounding) else ():
            value = getattr(rounding, setting.name)
            if setting.name in _OWN and value != setting.default:
                text = f"{setting.default!r} expected, mixed precision has its own; got {value!r}"
                raise ValueError(f"rounding.{setting.name}: {text}")

    @property
    @override
    def predicts(self) -> bool:
        """Return True: the bits are assigned by their predicted loss."""
        return True

    @property
    @override
    def stored(self) -> frozenset[int]:
        return frozenset() if self.simulate else frozenset({16, *(self.widths if self.bits < 16 else ())})

    @override
    def portable(self) -> Self:
        rounding = self.rounding
        whole = rounding.with_whole_zeros() if isinstance(rounding, ZeroPlacing) else rounding
        return replace(self, scheme="weight_only", rounding=whole)

    @override
    def stored_in_blocks(self, size: Literal[32, 64, 128]) -> Self:
        rounding = self.rounding
        return replace(
            self,
            scheme="weight_only",
            rounding=rounding.in_blocks(size) if isinstance(rounding, BlockRounding) else rounding,
        )

    @override
    def quantize_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        from objectives.quantization.layers import WeightFormat, store_

        rounded: Rounded = {}
        bits = self._assigned(model, statistics, rounded)
        form = WeightFormat(bits, self.rounding, self.scheme, self.embeddings, self.simulate)
        store_(model, statistics, device, form, predict=True, rounded=rounded)

    @override
    def resize_fake_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """Give every layer the bits that the dense model's layer would get; tensors stay fake."""
        from objectives.quantization.layers import Sketch, WeightFormat, store_

        bits = self._assigned(statistics.model, statistics, {})
        form = WeightFormat(bits, Sketch(self.rounding.group_size), self.scheme, self.embeddings)
        store_(model, statistics.shapes, device, form)

    @override
    def predict(self, statistics: Statistics) -> float:
        from objectives.quantization.sensitivity import predicted_loss

        return predicted_loss(statistics, self._assigned(statistics.model, statistics, {}), self.rounding, self.scheme)

    def _assigned(self, model: LoadedModel, statistics: Statistics, rounded: Rounded) -> dict[tuple[str, str], int]:
        """Return the bits by :attr:`Layer.key`; the codes that were computed for it are left in ``rounded``.

        Raises Unsupported where the average cannot be met.
        """
        from objectives.knapsack import cheapest
        from objectives.models.layers import layers_of

        layers = list(layers_of(model))
        if self.bits >= 16:
            return {layer.key: 16 for layer in layers}
        total = sum(layer.parameters for layer in layers)
        widths: list[int] = sorted({16, *self.widths}, reverse=True)
        options = [self._options(model, statistics, layer, widths, rounded) for layer in layers]
        chosen = cheapest(options, (16 - self.bits) * total)
        if chosen is None:
            raise Unsupported(f"quantization.bits: an average of {self.bits} cannot be met with widths {self.widths}")
        return {layer.key: widths[index] for layer, index in zip(layers, chosen)}

    def _options(
        self, model: LoadedModel, statistics: Statistics, layer: Layer, widths: list[int], rounded: Rounded
    ) -> Options:
        """Return, for each width, the bits that it saves and its predicted loss."""
        from objectives.knapsack import Options
        from objectives.quantization.sensitivity import rounded_loss

        losses = [
            rounded_loss(model, statistics, layer, width, self.rounding, self.scheme, rounded) for width in widths
        ]
        return Options([16 * layer.parameters - self._cost(layer, width) for width in widths], losses)

    def _cost(self, layer: Layer, width: int) -> int:
        """Count the bits that a layer takes: codes, and with ``budget`` ``stored`` its scales and zeros too."""
        from objectives.quantization.layer_codes import group_size_for

        codes = width * layer.parameters
        if self.budget == "codes" or width == 16:
            return codes
        if width == 8:
            return codes + 32 * sum(linear.out_features for linear in layer.linears)
        size = group_size_for(layer, self.rounding.group_size)
        return codes if size is None else codes + 32 * layer.parameters // size
