"""No recovery: the model stays as pruning left it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.candidate import Recovery
from objectives.settings import FORBID

if TYPE_CHECKING:
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel


@settings(frozen=True, kw_only=True, config=FORBID)
class Off(Recovery):
    """Do nothing."""

    trains = False

    @override
    def recover_(self, model: LoadedModel, statistics: Statistics) -> None:
        """Leave ``model`` as it is."""
