"""The accuracy floor eps, which a candidate must reach to be feasible."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AccuracyFloor:
    """The lowest accuracy that a feasible candidate may have.

    ``epsilon``: share of the measured baseline's accuracy when ``relative``, else an accuracy in [0, 1]. ``error``: the
    chance that a study takes some infeasible recipe for feasible, or the reverse. Examples are scored until the floor
    is decided at that error, which all recipes share. With 0 every example is scored.
    """

    epsilon: Annotated[float, Field(strict=True, ge=0.0, le=2.0, allow_inf_nan=False)]
    relative: Annotated[bool, Field(strict=True)] = True
    error: Annotated[float, Field(strict=True, ge=0.0, lt=0.5, allow_inf_nan=False)] = 0.05

    @field_validator("epsilon", mode="before")
    @classmethod
    def _is_no_per_cent(cls, given: object) -> object:
        if isinstance(given, (int, float)) and 2.0 < given <= 100.0:
            raise ValueError(f"expected a number >= 0 and <= 2 (did you mean {given / 100:g}?)")
        return given

    def __post_init__(self) -> None:
        """Refuse an absolute floor above 1, which no accuracy reaches."""
        if not self.relative and self.epsilon > 1.0:
            raise ValueError(f"an absolute accuracy floor lies in [0, 1]; got {self.epsilon}")

    def absolute(self, baseline_accuracy: float) -> float:
        """Return the floor as an accuracy."""
        return self.epsilon * baseline_accuracy if self.relative else self.epsilon

    def __str__(self) -> str:
        """Return the floor in words, for tables."""
        return f"{self.epsilon:.4g} x baseline" if self.relative else f"{self.epsilon:.4g}"
