"""What the pruners of single weights share: their settings, and all that is not the choice of weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID, Ratio, Strength

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Moment
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel


@settings(frozen=True, kw_only=True, config=FORBID)
class Masked(ABC):
    """Zero ``ratio`` of every block linear's weights: in any place, or ``2:4``. Simulated: no kernel gains by it."""

    ratio: Annotated[Ratio, Strength(neutral=0.0, harder=+1)] = 0.0
    pattern: Literal["unstructured", "2:4"] = "unstructured"

    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        """See ``Pruner``."""
        from objectives.pruning.masking import mask_

        if self.ratio:
            mask_(model, statistics, self.ratio, self.pattern, self.masked)

    def resize_fake_(self, model: LoadedModel, statistics: Statistics) -> None:  # noqa: B027
        """See ``Pruner``: a mask changes no shape."""

    def predict(self, statistics: Statistics) -> float:
        """See ``Pruner``."""
        return float("nan") if self.ratio else 0.0

    @abstractmethod
    def masked(self, weight: Tensor, moment: Moment) -> Tensor:
        """Return ``weight`` [out, in] with zeros; ``moment``: of its inputs."""
