"""Removes combinations that a runtime cannot run from a space, with the reason, before any work is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from objectives.protocols.candidate import Candidate, Model, Runtime
from objectives.protocols.optional import Inspectable
from objectives.protocols.running import Device
from objectives.protocols.serving import Hosting, Loading
from objectives.runtime.engine_support import keeps
from objectives.settings import asks_to_prune
from objectives.types import Head
from search.errors import ConfigError
from search.records.trial import Value
from search.space.grid import MOST_CELLS
from search.space.reference import unserved
from search.space.space import CHOSEN, Cell, Space


def without_unsupported(space: Space, head: Head, device: Device, unpruned: str | None = None) -> Space:
    """Return ``space`` without the cells that cannot be run; its ``outside`` gives the reasons.

    A space too large to be enumerated stays as it is: its cells are checked one by one when they are tried.
    ``unpruned``: why the model cannot be pruned, where it cannot. Raises ConfigError where a package is missing or no
    cell is left.
    """
    _require_packages(space)
    if len(space) > MOST_CELLS:
        return space
    cells = ((tuple(cell.values()), reason_against(space, cell, head, device, unpruned)) for cell in space.cells())
    outside = {values: reason for values, reason in cells if reason is not None}
    if len(outside) == len(space):
        raise ConfigError(f"space: no cell can be run; {'; '.join(grouped(outside))}")
    return replace(space, outside=outside)


def unprunable(model: Model) -> str | None:
    """Return why no pruner works on ``model``, as far as its files say; None where one may."""
    return model.unprunable() if isinstance(model, Inspectable) else None


def reason_against(space: Space, cell: Cell, head: Head, device: Device, unpruned: str | None = None) -> str | None:
    """Return ``runtime: why`` or ``pruning: why`` where ``cell`` cannot be run; None where it can be run."""
    candidate = space.candidate(cell)
    if unpruned is not None and asks_to_prune(candidate.pruning):
        return f"pruning: {unpruned}"
    reason = (
        space.misplaced(cell)
        or _unserved(space, candidate)
        or keeps(candidate, head)
        or candidate.runtime.supports(candidate, head, device)
    )
    return None if reason is None else f"{candidate.runtime.name}: {reason}"


def _unserved(space: Space, candidate: Candidate) -> str | None:
    """Return why the candidate's runtime cannot serve, where its workload loads a server, and which ones can."""
    reason = unserved(candidate.runtime) if isinstance(candidate.workload, Loading) else None
    if reason is None or isinstance(candidate.runtime, Hosting):
        return reason
    return f"{reason}: workload=serving needs runtime={' or '.join(space.serving)}"


def runtimes_of(space: Space) -> dict[str, Runtime]:
    """Return the runtimes that the space can select, by name."""
    names: Sequence[Value] = next((axis.values for axis in space.axes if axis.path == CHOSEN), (None,))
    first = space.baseline()
    runtimes = (space.candidate({**first, CHOSEN: name} if name else _without(first)).runtime for name in names)
    return {runtime.name: runtime for runtime in runtimes}


def _without(cell: Cell) -> dict[str, Value]:
    return {path: value for path, value in cell.items() if path != CHOSEN}


def _require_packages(space: Space) -> None:
    for runtime in runtimes_of(space).values():
        missing = runtime.requirements()
        if missing is not None:
            raise ConfigError(missing)


def grouped(outside: Mapping[tuple[Value, ...], str]) -> dict[str, int]:
    """Return how many cells each reason removes, the most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    for reason in outside.values():
        counts[reason] += 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
