"""What a set of channels is worth to a pruner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel
    from objectives.models.blocks import Unit
    from objectives.pruning.curve import Curve


@runtime_checkable
class Criterion(Protocol):
    """What a set of channels is worth to a pruner. Immutable and hashable."""

    @property
    def allocation(self) -> Literal["global", "uniform"]:
        """``global`` where costs of different layers compare, else ``uniform``."""

    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        """The removal curve of one unit of the dense ``model``, at the numbers of ``removed`` sets, from 0 up."""
