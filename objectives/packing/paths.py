"""Picks the path of a packed linear: the way of multiplying that is fastest for a number of rows on this machine.

A path is a method of the linear's class. All paths of a class give the same product but for rounding. None holds a
second copy of the weight but the one that is there for it, where a copy is asked for. Which one is fastest depends on
the CPU, the threads and the shape, so it is measured (:mod:`objectives.packing.path_times`), once for every class and
size, and kept in a file that bears the machine's fingerprint. So it is the same in every later process, and a winner
carries what was in use. Sizes count as the nearest power of two. Where nothing was measured, or a weight is so small
that calls cost more than products, each class has a rule of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Numbers of rows that are measured."""
TURNS = (1, 2, 5, 11, 22, 45, 90, 181, 362)
"""The most rows that count as each of them but the last."""
WORTH = 1 << 17
"""Elements of the smallest weight that is measured."""
LARGEST = 4096
"""The most inputs and outputs that are measured; what is larger behaves alike."""
_PATIENCE = 60.0
"""Seconds to wait for another process that measures."""

Shape = tuple[int, int]
"""Inputs and outputs of a weight."""
Ranked = tuple[tuple[str, ...], ...]
"""Names of paths for every number in :data:`ROWS`, fastest first."""
Measure = Callable[[Shape], Mapping[int, Mapping[str, float]]]
"""Returns the seconds of every path of a class, by number of rows."""


@dataclass
class Known:
    """The figures that this process knows.

    ``machine``: its fingerprint; ``file``: where more is kept, None of no machine; ``changes``: how often they changed.
    """

    machine: str = ""
    file: Path | None = None
    ranked: dict[str, Ranked] = field(default_factory=dict)
    changes: int = 0


known = Known()
"""The figures in use; who keeps an answer of :func:`fastest` asks ``known.changes`` whether it still holds."""


def use(facts: Mapping[str, str], folder: Path, carried: Mapping[str, Any] | None = None) -> None:
    """Use what was measured on the machine with these ``facts``, in its file in ``folder``; what lacks is measured.

    ``carried``: what a winner carries (:func:`in_use`); it goes before the file where the machine is the same, and
    after what this process uses already.
    """
    machine = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:12]
    file = folder / f"paths-{machine}.json"
    found = _stored(file)
    if carried is not None and carried.get("machine") == machine:
        found |= _checked(carried.get("fastest"))
    if (known.machine, known.file) == (machine, file):
        found |= known.ranked
    known.machine, known.file, known.ranked = machine, file, found
    known.changes += 1


def forget() -> None:
    """Use no measured figures any more, and measure nothing: every class falls back to its rule."""
    known.machine, known.file, known.ranked = "", None, {}
    known.changes += 1


def fastest(kind: str, shape: Shape, rows: int, paths: tuple[str, ...]) -> str | None:
    """Return the fastest of ``paths`` for ``rows`` rows; None where nothing is known."""
    ranked = known.ranked.get(name_of(kind, shape))
    names = () if ranked is None else ranked[bisect_left(TURNS, rows)]
    return next((name for name in names if name in paths), None)


def settle(name: str, shape: Shape, measure: Measure) -> None:
    """Measure the paths that are kept under ``name``, at the size of ``shape``, unless known, or not worth it.

    Processes take turns, and all take what the first one found.
    """
    size = _power(shape[0]), _power(shape[1])
    if known.file is None or name in known.ranked or size[0] * size[1] < WORTH:
        return
    try:
        known.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(known.file.with_suffix(".lock"), timeout=_PATIENCE):
            known.ranked = {**_stored(known.file), **known.ranked}
            if name not in known.ranked:
                known.ranked[name] = _ranking(measure(size))
                _store(known.file, {**_stored(known.file), name: known.ranked[name]})
    except (OSError, Timeout) as error:
        log.warning("the fastest ways to multiply are measured in every process, they cannot be kept: %s", error)
        known.ranked.setdefault(name, _ranking(measure(size)))
    known.changes += 1


def in_use(names: Iterable[str]) -> dict[str, Any]:
    """Return the machine's fingerprint, and the fastest paths that are known for ``names`` (:func:`name_of`)."""
    first = {name: [each[0] for each in known.ranked[name]] for name in sorted({*names} & {*known.ranked})}
    return {"machine": known.machine, "fastest": first}


def digest(names: Iterable[str]) -> str:
    """Return a hash of what is in use for ``names``: where it is the same, kernels add up in the same order."""
    return hashlib.sha256(json.dumps(in_use(names), sort_keys=True).encode()).hexdigest()[:12]


def name_of(kind: str, shape: Shape) -> str:
    """Return the name under which the paths of a class are kept for a shape."""
    return f"{kind} {_power(shape[0])}x{_power(shape[1])}"


@cache
def _power(size: int) -> int:
    """Return the power of two that is nearest to ``size`` by ratio, :data:`LARGEST` at most."""
    below = 1 << (max(1, size).bit_length() - 1)
    return min(LARGEST, below if size * size <= 2 * below * below else 2 * below)


def _ranking(times: Mapping[int, Mapping[str, float]]) -> Ranked:
    return tuple(tuple(sorted(times[rows], key=times[rows].__getitem__)) for rows in ROWS)


def _checked(found: object) -> dict[str, Ranked]:
    """Return what a file or a winner says, without what no version of ours wrote."""
    if not isinstance(found, dict):
        return {}
    return {str(name): _of_rows(each) for name, each in found.items() if isinstance(each, list) and _is_whole(each)}


def _is_whole(each: Sequence[object]) -> bool:
    return len(each) == len(ROWS) and all(isinstance(names, str | list) and names for names in each)


def _of_rows(each: Sequence[Any]) -> Ranked:
    return tuple((names,) if isinstance(names, str) else tuple(map(str, names)) for names in each)


def _stored(file: Path) -> dict[str, Ranked]:
    try:
        return _checked(json.loads(file.read_bytes()))
    except (OSError, ValueError):
        return {}


def _store(file: Path, ranked: Mapping[str, Ranked]) -> None:
    part = file.with_name(f".{file.name}.{uuid4().hex}.part")
    part.write_text(json.dumps(ranked, indent=1), encoding="utf-8")
    os.replace(part, file)
