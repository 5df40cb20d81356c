"""The accuracy floor eps, which a candidate must reach to be feasible; of several tasks, one each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

Epsilon = Annotated[float, Field(strict=True, ge=0.0, le=2.0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AccuracyFloor:
    """The lowest accuracy that a feasible candidate may have.

    ``epsilon``: share of the measured baseline's accuracy when ``relative``, else an accuracy in [0, 1]. ``error``: the
    chance that a study takes some infeasible recipe for feasible, or the reverse. Examples are scored until the floor
    is decided at that error, which all recipes share. With 0 every example is scored.

    ``tasks``: of several tasks, the floors of those that do not keep ``epsilon``, by name. ``mean``: the floor of the
    tasks' weighted mean; then only those that ``tasks`` names have a floor of their own.
    """

    epsilon: Epsilon
    relative: Annotated[bool, Field(strict=True)] = True
    error: Annotated[float, Field(strict=True, ge=0.0, lt=0.5, allow_inf_nan=False)] = 0.05
    tasks: Mapping[str, Epsilon] = Field(default_factory=dict)
    mean: Epsilon | None = None

    @field_validator("epsilon", "mean", mode="before")
    @classmethod
    def _is_no_per_cent(cls, given: object) -> object:
        if isinstance(given, (int, float)) and 2.0 < given <= 100.0:
            raise ValueError(f"expected a number >= 0 and <= 2 (did you mean {given / 100:g}?)")
        return given

    @field_validator("tasks", mode="before")
    @classmethod
    def _are_no_per_cent(cls, given: object) -> object:
        if isinstance(given, Mapping):
            for value in given.values():
                cls._is_no_per_cent(value)
        return given

    def __post_init__(self) -> None:
        """Refuse an absolute floor above 1, which no accuracy reaches."""
        highest = max(self.epsilon, self.mean or 0.0, *self.tasks.values())
        if not self.relative and highest > 1.0:
            raise ValueError(f"an absolute accuracy floor lies in [0, 1]; got {highest}")

    def absolute(self, baseline_accuracy: float) -> float:
        """Return the floor as an accuracy."""
        return self._absolute(self.epsilon, baseline_accuracy)

    def of(self, task: str) -> float:
        """Return what is asked of one of several tasks, in the unit of ``epsilon``; 0 where nothing is."""
        return self.tasks.get(task, self.epsilon if self.mean is None else 0.0)

    def of_task(self, task: str, baseline_accuracy: float) -> float:
        """Return the floor of one of several tasks as an accuracy."""
        return self._absolute(self.of(task), baseline_accuracy)

    def of_mean(self, baseline_accuracy: float) -> float:
        """Return the floor of the weighted mean of several tasks as an accuracy; 0 where none is asked."""
        return self._absolute(self.mean or 0.0, baseline_accuracy)

    def _absolute(self, share: float, baseline_accuracy: float) -> float:
        return share * baseline_accuracy if self.relative else share

    def __str__(self) -> str:
        """Return the floor in words, for tables."""
        return f"{self.epsilon:.4g} x baseline" if self.relative else f"{self.epsilon:.4g}"
