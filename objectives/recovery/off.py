"""No recovery: the model stays as pruning left it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID

if TYPE_CHECKING:
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel


@settings(frozen=True, kw_only=True, config=FORBID)
class Off:
    """Do nothing."""

    trains = False

    def recover_(self, model: LoadedModel, statistics: Statistics) -> None:
        """See ``Recovery``."""
