"""The protocol of criteria: a criterion says what removing sets of channels costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel
    from objectives.models.blocks import Unit
    from objectives.pruning.curve import Curve


@runtime_checkable
class Criterion(Protocol):
    """Says what removing sets of channels costs. Immutable and hashable."""

    @property
    def allocation(self) -> Literal["global", "uniform"]:
        """Return ``global`` where the costs of different layers can be compared, else ``uniform``."""

    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        """Return the removal curve of one unit of the dense ``model``.

        ``removed``: the numbers of removed sets at which it is computed, ascending from 0.
        """
