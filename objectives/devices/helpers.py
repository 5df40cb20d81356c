"""Processes that work for this one, such as an engine in a process of its own: what they use counts as ours.

Without it a run in such a process would take no CPU time, wait for no processor and need no memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_helpers: dict[int, Helper] = {}


@dataclass(frozen=True)
class Helper:
    """A process that works for this one; ``before``: its sizes in bytes, by name, when it had opened nothing yet."""

    pid: int
    before: Mapping[str, int] = field(default_factory=dict)


def count(pid: int) -> None:
    """Count what process ``pid`` uses from now on, beyond the memory that it has."""
    _helpers[pid] = Helper(pid, sizes(pid))


def forget(pid: int) -> None:
    """Count process ``pid`` no longer."""
    _helpers.pop(pid, None)


def pids() -> tuple[int, ...]:
    """Return the processes that count."""
    return tuple(_helpers)


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its helpers; of one that ended nothing."""
    total = time.process_time()
    for pid in _helpers:
        with suppress(OSError):
            total += time.clock_gettime(~pid << 3 | 2)  # how Linux names the CPU clock of another process
    return total


def sizes(pid: int | None = None) -> dict[str, int]:
    """Return the sizes that Linux tells of a process, by default of this one, in bytes by name."""
    file = Path(f"/proc/{os.getpid() if pid is None else pid}/status")
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value.split()[0]) * 1024
    return found


def sizes_of_all() -> dict[str, int]:
    """Return the sizes of this process, and what its helpers have beyond what they began with."""
    total = sizes()
    for helper in _helpers.values():
        now = sizes(helper.pid)
        for name in ("RssAnon", "RssFile", "VmRSS"):
            total[name] += now[name] - helper.before[name]
        total["VmHWM"] += now["VmHWM"] - helper.before["VmRSS"]
    return total


def all_of_us() -> Iterator[Path]:
    """Yield the folder below ``/proc`` of this process and of its helpers."""
    yield Path("/proc/self")
    for pid in _helpers:
        yield Path(f"/proc/{pid}")
