"""The accuracy floor eps: what a candidate must keep to be feasible."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AccuracyFloor:
    """``epsilon``: share of the measured baseline's accuracy when ``relative``, else an accuracy in [0, 1].

    ``error``: the chance that a study takes some recipe for feasible that is not, or the reverse: examples are scored
    until the floor is decided at that error, spread over all recipes. 0 scores every example.
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
        """An absolute floor above 1 can only be a slip."""
        if not self.relative and self.epsilon > 1.0:
            raise ValueError(f"an absolute accuracy floor lies in [0, 1]; got {self.epsilon}")

    def absolute(self, baseline_accuracy: float) -> float:
        """The floor as an accuracy."""
        return self.epsilon * baseline_accuracy if self.relative else self.epsilon

    def __str__(self) -> str:
        """In words, for tables."""
        return f"{self.epsilon:.4g} x baseline" if self.relative else f"{self.epsilon:.4g}"
