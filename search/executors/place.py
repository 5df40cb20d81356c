"""Says where a measuring process runs: which cores it may use, and which devices it sees.

A place is taken before torch is imported. OpenMP and CUDA read theirs when they start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from objectives.protocols.optional import Plural
from objectives.protocols.running import Device
from search.errors import ConfigError

Cores = int | Sequence[str | int | Sequence[int]]
"""A number of equal sets, or the sets themselves: as lists of cores, as ranges (``0-3``), or one core each."""


@dataclass(frozen=True)
class Place:
    """The ``cores`` that a process may use, all that its parent has where empty, and its own ``environment``."""

    cores: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def take(self) -> None:
        """Keep this process to the place."""
        os.environ.update(self.environment)
        if self.cores:
            os.sched_setaffinity(0, self.cores)


def places_of(device: Device, cores: Cores | None, key: str = "executor.cpus") -> list[Place]:
    """Return a place for every device of the kind: every visible GPU, or every set of ``cores``.

    Raises ConfigError, naming ``key``.
    """
    if isinstance(device, Plural):
        if cores is not None:
            raise ConfigError(
                f"{key}: sets of cores are for device=cpu, this study measures on {device.name}; results of unlike "
                f"devices are never mixed: leave {key} out, or choose device=cpu"
            )
        return [Place(environment=seen) for seen in device.each()]
    if cores is None:
        raise ConfigError(
            f"{key}: on a {device.name} say which cores each process uses, as {key}=2 for two equal sets or "
            f"{key}=[0-3,4-7]; executor=worker is one process with all of them"
        )
    allowed = sorted(os.sched_getaffinity(0))
    sets = _equal(allowed, cores, key) if isinstance(cores, int) else [_set(each, allowed, key) for each in cores]
    _require_disjoint(sets, allowed, key)
    return [Place(tuple(each)) for each in sets]


def _equal(allowed: Sequence[int], count: int, key: str) -> list[list[int]]:
    """Divide the cores among ``count`` processes; those that are left over stay idle."""
    size = len(allowed) // count
    if not size:
        raise ConfigError(f"{key}: at most {len(allowed)}, the cores of this process, got {count}")
    return [list(allowed[place * size : (place + 1) * size]) for place in range(count)]


def _set(written: str | int | Sequence[int], allowed: Sequence[int], key: str) -> list[int]:
    """Return the cores of one set. Raises ConfigError for a range beyond the ``allowed`` cores."""
    if isinstance(written, int):
        return [written]
    if not isinstance(written, str):
        return list(written)
    try:
        begin, _, end = written.partition("-")
        first, last = int(begin), int(end or begin)
    except ValueError:
        raise ConfigError(f"{key}: cores as [0,1] or 0-1 expected, got {written!r}") from None
    if max(first, last) > allowed[-1]:  # before the range is a list, which could fill the memory
        raise ConfigError(f"{key}: this process may use the cores {list(allowed)}, got {written}")
    return list(range(first, last + 1))


def _require_disjoint(sets: Sequence[Sequence[int]], allowed: Sequence[int], key: str) -> None:
    shown = [list(each) for each in sets]
    cores = [core for each in sets for core in each]
    absent = sorted(set(cores) - set(allowed))
    if not cores or not all(sets):
        raise ConfigError(f"{key}: at least one core for each process expected, got {shown}")
    if absent:
        raise ConfigError(f"{key}: this process may use the cores {list(allowed)}, got {absent}")
    if len(set(cores)) < len(cores):
        raise ConfigError(f"{key}: a core belongs to one process, as two would disturb each other; got {shown}")
    if len({len(each) for each in sets}) > 1:
        raise ConfigError(f"{key}: as many cores for each process, since unlike devices are never mixed; got {shown}")
