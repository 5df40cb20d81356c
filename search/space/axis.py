"""One searched variable of the space, and when two of its values are the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from objectives.settings import Strength
from search.records.trial import Value


def same(one: object, other: object) -> bool:
    """Return whether two values are equal but for rounding: 0.3 and 0.1 + 0.2, 8 and 8.0; true is not 1."""
    numbers = [value for value in (one, other) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == 2:
        return math.isclose(*numbers, rel_tol=1e-9, abs_tol=1e-12)
    return not numbers and one == other


@dataclass(frozen=True)
class Axis:
    """One searched variable: its dotted path and its values, numbers sorted.

    ``first``: the first value as configured, before sorting; ``strength``: that of the setting, where it has one.
    """

    path: str
    values: tuple[Value, ...]
    first: Value
    strength: Strength | None = None

    @property
    def is_ordinal(self) -> bool:
        """Return whether the values have an order that a sampler should know."""
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)

    @property
    def parameter(self) -> str:
        """Return the name in the Optuna study; ordinals are stored as indices into the grid."""
        return f"{self.path}[i]" if self.is_ordinal else self.path

    @property
    def distribution(self) -> BaseDistribution:
        """Return the distribution that Optuna samples from."""
        if self.is_ordinal:
            return IntDistribution(0, len(self.values) - 1)
        return CategoricalDistribution(self.values)

    def value(self, sampled: Any) -> Value:
        """Return the value on the grid that Optuna's ``sampled`` stands for."""
        value: Value = self.values[sampled] if self.is_ordinal else sampled
        return value

    def sampled(self, value: Value) -> Any:
        """Return what stands for ``value`` in Optuna: the inverse of :meth:`value`."""
        return self.place(value) if self.is_ordinal else value

    def place(self, value: object) -> int | None:
        """Return the place of ``value`` among the axis's values, rounding aside; None where it is none of them."""
        if isinstance(value, int | float | str) and (type(value), value) in self._places:
            return self._places[type(value), value]
        return next((place for place, own in enumerate(self.values) if same(own, value)), None)

    @cached_property
    def _places(self) -> dict[tuple[type, object], int]:
        """Return the place of each value by its type and itself: an axis may have thousands."""
        return {(type(value), value): place for place, value in reversed(list(enumerate(self.values)))}
