"""The base of the pruners of single weights: their settings, and all that is not the choice of weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.candidate import Pruner
from objectives.protocols.optional import Masking
from objectives.settings import FORBID, Ratio, Strength

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Moment
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel


@settings(frozen=True, kw_only=True, config=FORBID)
class Masked(Pruner, Masking, ABC):
    """Zero ``ratio`` of every block linear's weights: in any place, or ``2:4``. Simulated: no kernel gains by it."""

    ratio: Annotated[Ratio, Strength(neutral=0.0, harder=+1)] = 0.0
    pattern: Literal["unstructured", "2:4"] = "unstructured"

    @property
    @override
    def masks_weights(self) -> bool:
        return self.ratio > 0

    @override
    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        from objectives.pruning.masking import mask_

        if self.ratio:
            mask_(model, statistics, self.ratio, self.pattern, self.masked)

    @override
    def resize_fake_(self, model: LoadedModel, statistics: Statistics) -> None:
        """Leave ``model`` as it is: a mask changes no shape."""

    @override
    def predict(self, statistics: Statistics) -> float:
        return float("nan") if self.ratio else 0.0

    @abstractmethod
    def masked(self, weight: Tensor, moment: Moment) -> Tensor:
        """Return ``weight`` [out, in] with zeros; ``moment``: the moment of its inputs."""
