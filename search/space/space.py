"""The search space: a tree that mirrors the candidate.

``space.pruning.ratio: [0, 0.1]`` varies the field ``ratio`` of whatever ``pruning`` names. A *cell* is one choice
for every axis, by dotted path. Numbers become ordinals for the sampler (an index into the sorted grid), so that
neighbouring ratios and batch sizes are neighbours to it and no float step ever drifts off the grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import Trial

from objectives.protocols.candidate import Candidate
from objectives.settings import Strength, strengths_of
from search.errors import ConfigError
from search.records.trial import Value
from search.space import members
from search.space.instantiate import ALLOWED, build, nearest, target_of
from search.space.members import require_equality, require_members, require_sendable

Cell = Mapping[str, Value]
PARTS = ("pruning", "quantization", "workload", "recovery", "runtime")
"""In the order of the candidate's fields."""
CHOSEN = "runtime"
"""The part of which an axis may choose the class, by its name in ``runtimes``."""
COMPRESSING = ("pruning", "quantization", "recovery")
"""The parts whose settings may have a strength."""
REFERENCE = "torch"
"""The runtime of the baseline."""


def same(one: object, other: object) -> bool:
    """Return whether two values are one but for rounding: 0.3 and 0.1 + 0.2, 8 and 8.0; true is not 1."""
    numbers = [value for value in (one, other) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == 2:
        return math.isclose(*numbers, rel_tol=1e-9, abs_tol=1e-12)
    return not numbers and one == other


@dataclass(frozen=True)
class Axis:
    """One searched variable: its dotted path and its values, numbers sorted.

    ``first``: of the values as they are configured; ``strength``: that of the setting, where it has one.
    """

    path: str
    values: tuple[Value, ...]
    first: Value
    strength: Strength | None = None

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
        return self.place(value) if self.is_ordinal else value

    def place(self, value: object) -> int | None:
        """Return where ``value`` stands among the axis's own, rounding aside; None where it does not."""
        return next((place for place, own in enumerate(self.values) if same(own, value)), None)


@dataclass(frozen=True)
class Space:
    """Axes over a base configuration ``parts`` (the yaml nodes of :data:`PARTS`).

    ``runtimes``: nodes that an axis ``runtime`` may choose by name. ``outside``: why a cell, by its values in the order
    of the axes, is left out.
    """

    axes: tuple[Axis, ...]
    parts: Mapping[str, Any]
    allowed: Sequence[str] = ALLOWED
    runtimes: Mapping[str, Any] = field(default_factory=dict)
    outside: Mapping[tuple[Value, ...], str] = field(default_factory=dict, compare=False, repr=False)
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
        return all(axis.place(cell[axis.path]) is not None for axis in self.axes)

    def own(self, cell: Cell) -> Cell:
        """Return a cell of the space by the values as its axes write them (0.3 for 0.1 + 0.2)."""
        return {
            axis.path: axis.values[place] for axis in self.axes if (place := axis.place(cell[axis.path])) is not None
        }

    def baseline(self) -> Cell:
        """Return the cell that is measured first in every study: every strength neutral, as unpruned and 16 bits, and
        the first value of everything else.

        A strength that the settings fix otherwise is named in the cell, which then lies outside the space.
        """
        neutral, fixed = self.neutral(), self.fixed()
        forced = {path: value for path, value in neutral.items() if fixed.get(path) not in (None, value)}
        return {**forced, **{axis.path: neutral.get(axis.path, axis.first) for axis in self.axes}}

    def neutral(self) -> dict[str, Value]:
        """Return the value of every strength at which it does nothing, and the runtime of the baseline, by path."""
        return {**{path: each.neutral for path, each in self.strengths.items()}, CHOSEN: REFERENCE}

    @cached_property
    def strengths(self) -> Mapping[str, Strength]:
        """The strengths of all settings, searched or fixed, by dotted path."""
        return {
            f"{part}.{name}": strength
            for part in COMPRESSING
            for name, strength in strengths_of(target_of(self.parts[part], part, self.allowed), part).items()
        }

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
        """Return the candidate of the baseline; fixed settings that are no strength stay as configured."""
        return self.candidate(self.baseline())

    def _part(self, part: str, cell: Cell) -> Any:
        mine = {path: value for path, value in cell.items() if path == part or path.startswith(part + ".")}
        key = (part, tuple(mine.items()))
        if key not in self._built:
            name = mine.pop(part, None)
            node = dict(self._node(part, name))
            varied = {path.removeprefix(part + "."): value for path, value in mine.items()}
            if part == CHOSEN:
                varied = {name: value for name, value in varied.items() if self._has(node, name)}
            own = name is None or name == self._own_runtime
            where = part if own else f"runtimes.{name}"
            built = build({**node, **varied}, where, self.allowed)
            require_members(built, where, part, members.PARTS[part])
            require_sendable(built, where)
            require_equality(built, where)
            self._built[key] = built
        return self._built[key]

    def _node(self, part: str, name: Value) -> Mapping[str, Any]:
        """The yaml node of a part; of one that is chosen by name, as it is configured where it is that one."""
        own: Mapping[str, Any] = self.parts[part]
        if name is None or name == self._own_runtime:
            return own
        if name not in self.runtimes:
            known = ", ".join(sorted({str(self._own_runtime), *self.runtimes}))
            raise ConfigError(f"{part}: unknown{nearest(str(name), list(self.runtimes))}; known: {known}; got {name!r}")
        chosen: Mapping[str, Any] = self.runtimes[str(name)]
        return chosen

    @property
    def _own_runtime(self) -> Value:
        """The name of the runtime that is configured."""
        name: Value = self._part(CHOSEN, {}).name
        return name

    def _has(self, node: Mapping[str, Any], name: str) -> bool:
        return name in getattr(target_of(node, CHOSEN, self.allowed), "__dataclass_fields__", {})

    def misplaced(self, cell: Cell) -> str | None:
        """A setting of ``cell`` that its runtime does not have, in words; at its first value it says nothing."""
        node = self._node(CHOSEN, cell.get(CHOSEN))
        for axis in self.axes:
            part, _, name = axis.path.partition(".")
            if part == CHOSEN and name and cell[axis.path] != axis.first and not self._has(node, name):
                return f"has no {name}"
        return None

    def fixed(self) -> dict[str, Value]:
        """Scalar settings of the candidate that are not searched, by dotted path."""
        searched = {axis.path for axis in self.axes}
        found = {f"{part}.{name}": value for part in PARTS for name, value in self.parts[part].items()}
        for path in self.strengths.keys() - found.keys():  # as the class has them
            part, _, name = path.partition(".")
            if (value := getattr(self._part(part, {}), name, None)) is not None:
                found[path] = value
        found[CHOSEN] = self._own_runtime
        if CHOSEN in searched:  # what is configured for one of several
            found = {path: value for path, value in found.items() if not path.startswith(f"{CHOSEN}.")}
        return {path: value for path, value in found.items() if path not in searched and not path.endswith("_target_")}


def build_space(
    tree: Mapping[str, Any],
    parts: Mapping[str, Any],
    allowed: Sequence[str] = ALLOWED,
    runtimes: Mapping[str, Any] | None = None,
) -> Space:
    """Check the ``space`` tree against the candidate's ``parts`` and build it. Raises ConfigError.

    ``runtimes``: what ``space.runtime.name`` may choose from.
    """
    axes = []
    runtimes = runtimes or {}
    if not isinstance(tree, Mapping):
        raise ConfigError(f"space: expected a mapping with {', '.join(PARTS)}, got {tree!r}")
    configured = Space((), parts, allowed, runtimes)
    configured.candidate({})  # by its own name
    for name, node in runtimes.items():  # also those that the space does not choose
        build(node, f"runtimes.{name}", allowed)
    for part, names in tree.items():
        if part not in PARTS:
            raise ConfigError(f"space.{part}: unknown part{nearest(part, PARTS)}; known: {', '.join(PARTS)}")
        if names is not None and not isinstance(names, Mapping):
            raise ConfigError(f"space.{part}: expected settings with lists of values, got {names!r}")
        for name, values in (names or {}).items():
            if values is not None:
                path = part if (part, name) == (CHOSEN, "name") else f"{part}.{name}"
                axes.append(_axis(path, values, configured))
    if not axes:
        raise ConfigError("space: nothing to vary; give at least one list, e.g. space.pruning.ratio=[0,0.1,0.2]")
    space = Space(tuple(axes), parts, allowed, runtimes)
    for axis in axes:
        for value in axis.values:
            try:
                space.candidate({axis.path: value})
            except ConfigError as error:  # one that an axis chooses by name is configured elsewhere
                elsewhere = axis.path == CHOSEN and value in runtimes and value != space._own_runtime
                where = "" if elsewhere else "space."
                raise ConfigError(f"{where}{error.message}") from error
    return space


def _axis(path: str, values: Any, configured: Space) -> Axis:
    part, _, name = path.partition(".")
    nodes = [configured.parts[part], *(configured.runtimes.values() if part == CHOSEN else ())]
    fields = sorted({field for node in nodes for field in _fields(node, part, configured.allowed)})
    if path != CHOSEN and name not in fields:
        raise ConfigError(f"space.{path}: no such setting{nearest(name, fields)}; {part} has: {', '.join(fields)}")
    listed = values if isinstance(values, list) else [values]
    if not listed or any(isinstance(value, (list, dict)) for value in listed):
        raise ConfigError(f"space.{path}: expected a list of values, got {values!r}")
    for one, other in itertools.combinations(listed, 2):
        if same(one, other):
            raise ConfigError(f"space.{path}: values must differ by more than rounding, got {one!r} and {other!r}")
    axis = Axis(path, tuple(listed), listed[0], configured.strengths.get(path))
    return replace(axis, values=tuple(sorted(listed))) if axis.is_ordinal else axis


def _fields(node: Mapping[str, Any], part: str, allowed: Sequence[str]) -> list[str]:
    return list(getattr(target_of(node, part, allowed), "__dataclass_fields__", {}))
