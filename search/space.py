"""The search space: a tree that mirrors the candidate.

``space.pruning.ratio: [0, 0.1]`` varies the field ``ratio`` of whatever ``pruning`` names. A *cell* is one choice
for every axis, by dotted path. Numbers become ordinals for the sampler (an index into the sorted grid), so that
neighbouring ratios and batch sizes are neighbours to it and no float step ever drifts off the grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import Trial

from objectives.types import Candidate
from search.build import ALLOWED, build, nearest, target_of
from search.errors import ConfigError
from search.records import Value

Cell = Mapping[str, Value]
PARTS = ("pruning", "quantization", "workload", "recovery")
_NEUTRAL: Mapping[str, Value] = {
    "pruning.ratio": 0.0, "pruning.attention_ratio": 0.0, "pruning.ffn_ratio": 0.0, "quantization.bits": 16,
    "recovery.seconds": 0.0, "quantization.embeddings": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """One searched variable: its dotted path and its values, numbers sorted."""

    path: str
    values: tuple[Value, ...]
    first: Value

    @property
    def is_ordinal(self) -> bool:
        """Whether the values have an order that a sampler should know."""
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)

    @property
    def parameter(self) -> str:
        """Name in the Optuna study: ordinals are stored as indices into the grid."""
        return f"{self.path}[i]" if self.is_ordinal else self.path

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna samples."""
        if self.is_ordinal:
            return IntDistribution(0, len(self.values) - 1)
        return CategoricalDistribution(self.values)

    def value(self, sampled: Any) -> Value:
        """From what Optuna sampled to the value on the grid."""
        found: Value = self.values[sampled] if self.is_ordinal else sampled
        return found

    def sampled(self, value: Value) -> Any:
        """The inverse of :meth:`value`."""
        return self.values.index(value) if self.is_ordinal else value


@dataclass(frozen=True)
class Space:
    """Axes over a base configuration ``parts`` (the yaml nodes of :data:`PARTS`)."""

    axes: tuple[Axis, ...]
    parts: Mapping[str, Any]
    allowed: Sequence[str] = ALLOWED
    _built: dict[tuple[str, tuple[tuple[str, Value], ...]], Any] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __len__(self) -> int:
        """Number of cells."""
        size = 1
        for axis in self.axes:
            size *= len(axis.values)
        return size

    def cells(self) -> Iterator[Cell]:
        """Every cell, last axis fastest."""
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield dict(zip((axis.path for axis in self.axes), values))

    def __contains__(self, cell: object) -> bool:
        """Whether every value of ``cell`` is on its axis."""
        if not isinstance(cell, Mapping) or set(cell) != {axis.path for axis in self.axes}:
            return False
        return all(cell[axis.path] in axis.values for axis in self.axes)

    def baseline(self) -> Cell:
        """Unpruned, 16 bits, the first value of everything else: measured first in every study.

        A ratio or bit width that the settings fix otherwise is named in the cell, which then lies outside the space.
        """
        fixed = self.fixed()
        forced = {path: value for path, value in _NEUTRAL.items() if fixed.get(path) not in (None, value)}
        return {**forced, **{axis.path: _NEUTRAL.get(axis.path, axis.first) for axis in self.axes}}

    def suggest(self, trial: Trial) -> Cell:
        """Let Optuna choose a cell."""
        return {axis.path: axis.value(self._suggest(trial, axis)) for axis in self.axes}

    @staticmethod
    def _suggest(trial: Trial, axis: Axis) -> Any:
        if axis.is_ordinal:
            return trial.suggest_int(axis.parameter, 0, len(axis.values) - 1)
        return trial.suggest_categorical(axis.parameter, axis.values)

    def sampled(self, cell: Cell) -> dict[str, Any]:
        """Optuna's parameters of a cell."""
        return {axis.parameter: axis.sampled(cell[axis.path]) for axis in self.axes}

    def candidate(self, cell: Cell) -> Candidate:
        """The candidate of a cell; raises ConfigError when a value is not allowed by its class."""
        return Candidate(*(self._part(part, cell) for part in PARTS))

    def baseline_candidate(self) -> Candidate:
        """The candidate of the baseline; fixed settings other than ratio and bits stay as configured."""
        return self.candidate(self.baseline())

    def _part(self, part: str, cell: Cell) -> Any:
        mine = {path: value for path, value in cell.items() if path.startswith(part + ".")}
        key = (part, tuple(mine.items()))
        if key not in self._built:
            node = dict(self.parts[part])
            node.update({path.removeprefix(part + "."): value for path, value in mine.items()})
            self._built[key] = build(node, part, self.allowed)
        return self._built[key]

    def fixed(self) -> dict[str, Value]:
        """Scalar settings of the candidate that are not searched, by dotted path."""
        searched = {axis.path for axis in self.axes}
        found = {f"{part}.{name}": value for part in PARTS for name, value in self.parts[part].items()}
        return {path: value for path, value in found.items() if path not in searched and not path.endswith("_target_")}


def build_space(tree: Mapping[str, Any], parts: Mapping[str, Any], allowed: Sequence[str] = ALLOWED) -> Space:
    """Check the ``space`` tree against the candidate's ``parts`` and build it. Raises ConfigError."""
    axes = []
    if not isinstance(tree, Mapping):
        raise ConfigError(f"space: expected a mapping with {', '.join(PARTS)}, got {tree!r}")
    for part, names in tree.items():
        if part not in PARTS:
            raise ConfigError(f"space.{part}: unknown part{nearest(part, PARTS)}; known: {', '.join(PARTS)}")
        if names is not None and not isinstance(names, Mapping):
            raise ConfigError(f"space.{part}: expected settings with lists of values, got {names!r}")
        for name, values in (names or {}).items():
            if values is not None:
                axes.append(_axis(f"{part}.{name}", values, parts, allowed))
    if not axes:
        raise ConfigError("space: nothing to vary; give at least one list, e.g. space.pruning.ratio=[0,0.1,0.2]")
    space = Space(tuple(axes), parts, allowed)
    for axis in axes:
        for value in axis.values:
            try:
                space.candidate({axis.path: value})
            except ConfigError as error:
                raise ConfigError(f"space.{error.message}") from error
    return space


def _axis(path: str, values: Any, parts: Mapping[str, Any], allowed: Sequence[str]) -> Axis:
    if not _has_field(parts, path, allowed):
        part, _, name = path.partition(".")
        fields = _fields(parts, part, allowed)
        raise ConfigError(f"space.{path}: no such setting{nearest(name, fields)}; {part} has: {', '.join(fields)}")
    listed = values if isinstance(values, list) else [values]
    if not listed or any(isinstance(value, (list, dict)) for value in listed):
        raise ConfigError(f"space.{path}: expected a list of values, got {values!r}")
    if len(set(listed)) < len(listed):
        raise ConfigError(f"space.{path}: values must differ, got {values!r}")
    axis = Axis(path, tuple(listed), listed[0])
    return Axis(path, tuple(sorted(listed)), listed[0]) if axis.is_ordinal else axis


def _has_field(parts: Mapping[str, Any], path: str, allowed: Sequence[str]) -> bool:
    part, _, name = path.partition(".")
    return name in _fields(parts, part, allowed)


def _fields(parts: Mapping[str, Any], part: str, allowed: Sequence[str]) -> list[str]:
    target = target_of(parts[part], part, allowed)
    return list(getattr(target, "__dataclass_fields__", {}))
