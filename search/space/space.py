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

from optuna.trial import Trial

from objectives.protocols.candidate import Candidate
from objectives.protocols.serving import Hosting
from objectives.settings import Strength, settings_of, strengths_of, takes
from search.errors import ConfigError
from search.records.trial import Value
from search.space import members
from search.space.axis import Axis as Axis
from search.space.axis import same as same
from search.space.instantiate import ALLOWED, build, nearest, target_of
from search.space.members import require_equality, require_members, require_sendable
from search.space.reference import reference_of

Cell = Mapping[str, Value]
PARTS = ("pruning", "quantization", "workload", "recovery", "runtime", "kv")
"""The parts of a candidate, in the order of its fields."""
CHOSEN = "runtime"
"""The part whose class an axis may choose, by its name in ``runtimes``."""
COMPRESSING = ("pruning", "quantization", "recovery", "kv")
"""The parts whose settings may have a strength."""


@dataclass(frozen=True)
class Space:
    """Axes over a base configuration ``parts`` (the yaml nodes of :data:`PARTS`).

    ``runtimes``: nodes that an axis ``runtime`` may choose by name. ``outside``: the cells that are left out, as values
    in the order of the axes, with the reason.
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
        """Return the number of cells."""
        return math.prod(len(axis.values) for axis in self.axes)

    def cells(self) -> Iterator[Cell]:
        """Yield every cell, last axis fastest."""
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield dict(zip((axis.path for axis in self.axes), values))

    def __contains__(self, cell: object) -> bool:
        """Return whether every value of ``cell`` is on its axis."""
        if not isinstance(cell, Mapping) or set(cell) != {axis.path for axis in self.axes}:
            return False
        return all(axis.place(cell[axis.path]) is not None for axis in self.axes)

    def own(self, cell: Cell) -> Cell:
        """Return ``cell`` with its values as the axes write them (0.3 for 0.1 + 0.2)."""
        return {
            axis.path: axis.values[place] for axis in self.axes if (place := axis.place(cell[axis.path])) is not None
        }

    def baseline(self) -> Cell:
        """Return the baseline, which every study measures first.

        Every strength is neutral (unpruned, 16 bits), and everything else has its first value. A strength that the
        settings fix otherwise is named in the cell, which then lies outside the space.
        """
        neutral, fixed = self.neutral(), self.fixed()
        forced = {path: value for path, value in neutral.items() if fixed.get(path) not in (None, value)}
        return {**forced, **{axis.path: neutral.get(axis.path, axis.first) for axis in self.axes}}

    def neutral(self) -> dict[str, Value]:
        """Return, by path, the value at which each strength does nothing, and the runtime of the baseline."""
        return {**{path: each.neutral for path, each in self.strengths.items()}, CHOSEN: self.reference}

    @cached_property
    def reference(self) -> str:
        """Return the name of the baseline's runtime."""
        searched = [value for axis in self.axes if axis.path == CHOSEN for value in (axis.first, *axis.values)]
        names = [str(name) for name in searched] or [str(self._own_runtime)]
        return reference_of(self._part("workload", {}), names, lambda name: self._part(CHOSEN, {CHOSEN: name}))

    @cached_property
    def strengths(self) -> Mapping[str, Strength]:
        """Return the strengths of all settings, searched or fixed, by dotted path."""
        return {
            f"{part}.{name}": strength
            for part in COMPRESSING
            for name, strength in strengths_of(target_of(self.parts[part], part, self.allowed), part).items()
        }

    @property
    def serving(self) -> list[str]:
        """Return the names of the runtimes that serve."""
        return [name for name in self.runtimes if isinstance(self._part(CHOSEN, {CHOSEN: name}), Hosting)]

    def suggest(self, trial: Trial) -> Cell:
        """Let Optuna choose a cell."""
        return {axis.path: axis.value(self._suggest(trial, axis)) for axis in self.axes}

    @staticmethod
    def _suggest(trial: Trial, axis: Axis) -> Any:
        if axis.is_ordinal:
            return trial.suggest_int(axis.parameter, 0, len(axis.values) - 1)
        return trial.suggest_categorical(axis.parameter, axis.values)

    def sampled(self, cell: Cell) -> dict[str, Any]:
        """Return the parameters of a cell in the Optuna study."""
        return {axis.parameter: axis.sampled(cell[axis.path]) for axis in self.axes}

    def candidate(self, cell: Cell) -> Candidate:
        """Return the candidate of a cell. Raises ConfigError where a class does not allow a value."""
        return Candidate(*(self._part(part, cell) for part in PARTS))

    def baseline_candidate(self) -> Candidate:
        """Return the candidate of the baseline; fixed settings other than strengths stay as configured."""
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
            is_configured = name is None or name == self._own_runtime
            where = part if is_configured else f"runtimes.{name}"
            built = build({**node, **varied}, where, self.allowed)
            require_members(built, where, part, members.PARTS[part])
            require_sendable(built, where)
            require_equality(built, where)
            self._built[key] = built
        return self._built[key]

    def _node(self, part: str, name: Value) -> Mapping[str, Any]:
        """Return the yaml node of a part: the configured one, or that of another runtime called ``name``."""
        configured: Mapping[str, Any] = self.parts[part]
        if name is None or name == self._own_runtime:
            return configured
        if name not in self.runtimes:
            known = ", ".join(sorted({str(self._own_runtime), *self.runtimes}))
            raise ConfigError(f"{part}: unknown{nearest(str(name), list(self.runtimes))}; known: {known}; got {name!r}")
        chosen: Mapping[str, Any] = self.runtimes[str(name)]
        return chosen

    @property
    def _own_runtime(self) -> Value:
        """Return the name of the configured runtime."""
        name: Value = self._part(CHOSEN, {}).name
        return name

    def _has(self, node: Mapping[str, Any], name: str) -> bool:
        return takes(target_of(node, CHOSEN, self.allowed), name)

    def misplaced(self, cell: Cell) -> str | None:
        """Say which setting of ``cell`` its runtime does not have; None where each such one has its first value."""
        node = self._node(CHOSEN, cell.get(CHOSEN))
        for axis in self.axes:
            part, _, name = axis.path.partition(".")
            if part == CHOSEN and name and cell[axis.path] != axis.first and not self._has(node, name):
                return f"has no {name}"
        return None

    def fixed(self) -> dict[str, Value]:
        """Return the settings of the candidate that are not searched, by dotted path."""
        searched = {axis.path for axis in self.axes}
        settings = {f"{part}.{name}": value for part in PARTS for name, value in self.parts[part].items()}
        for path in self.strengths.keys() - settings.keys():  # defaults of the class
            part, _, name = path.partition(".")
            if (value := getattr(self._part(part, {}), name, None)) is not None:
                settings[path] = value
        settings[CHOSEN] = self._own_runtime
        if CHOSEN in searched:  # these settings belong to one runtime of several
            settings = {path: value for path, value in settings.items() if not path.startswith(f"{CHOSEN}.")}
        return {
            path: value for path, value in settings.items() if path not in searched and not path.endswith("_target_")
        }


def build_space(
    tree: Mapping[str, Any],
    parts: Mapping[str, Any],
    allowed: Sequence[str] = ALLOWED,
    runtimes: Mapping[str, Any] | None = None,
) -> Space:
    """Check the ``space`` tree against the candidate's ``parts`` and build it. Raises ConfigError.

    ``runtimes``: the nodes that ``space.runtime.name`` may choose from.
    """
    axes = []
    runtimes = runtimes or {}
    if not isinstance(tree, Mapping):
        raise ConfigError(f"space: expected a mapping with {', '.join(PARTS)}, got {tree!r}")
    configured = Space((), parts, allowed, runtimes)
    configured.candidate({})  # checks the parts under their own names
    for name, node in runtimes.items():  # also runtimes that the space does not choose
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
    targets = [target_of(node, part, configured.allowed) for node in nodes]
    if path != CHOSEN and not any(takes(target, name) for target in targets):
        known = sorted({setting for target in targets for setting in settings_of(target)})
        has = f"{part} has: {', '.join(known)}" if known else f"{part} has none"
        raise ConfigError(f"space.{path}: no such setting{nearest(name, known)}; {has}; '~space.{path}' leaves it out")
    listed = values if isinstance(values, list) else [values]
    if not listed or any(isinstance(value, (list, dict)) for value in listed):
        raise ConfigError(f"space.{path}: expected a list of values, got {values!r}")
    for one, other in itertools.combinations(listed, 2):
        if same(one, other):
            raise ConfigError(f"space.{path}: values must differ by more than rounding, got {one!r} and {other!r}")
    axis = Axis(path, tuple(listed), listed[0], configured.strengths.get(path))
    return replace(axis, values=tuple(sorted(listed))) if axis.is_ordinal else axis
