"""The servers that run in this process, and the memory of one under load."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import psutil

from objectives.devices.stopwatch import Unwatched
from objectives.protocols.serving import Capacity, LoadingWorkload, Server, ServingRunner
from objectives.types import Memory

MOST_SERVERS = 8
"""The most servers at a time: at the end of a study the members of its front run in turns."""
SHARE = 0.5
"""The most of the machine's memory that they take together, but for the one that was asked for last."""

_running: dict[tuple[int, Capacity], Server] = {}
"""The servers of all runners, by their owner and capacity, in the order of use."""


class KeptServers:
    """The servers of one runner. Those of all runners share one budget, in numbers and in memory.

    Where it is not enough, those that were not used for longest end.
    """

    def __init__(self) -> None:
        weakref.finalize(self, _end_all, id(self)).atexit = False  # by then every server ends by itself

    def get(self, capacity: Capacity, start: Callable[[Capacity], Server]) -> Server:
        """Return the server of that capacity; ``start`` makes one where none runs, or where it ended."""
        name = (id(self), capacity)
        server = _running.pop(name, None)
        if server is None or not server.is_running:
            _make_room()
            server = start(capacity)
        _running[name] = server
        return server


def _make_room() -> None:
    """End servers until one more may start."""
    most = SHARE * psutil.virtual_memory().total
    while _running and (len(_running) >= MOST_SERVERS or sum(server.resting for server in _running.values()) > most):
        del _running[next(iter(_running))]


def _end_all(owner: int) -> None:
    for name in [name for name in _running if name[0] == owner]:
        del _running[name]


def memory_under_load(runner: ServingRunner, workload: LoadingWorkload, held: int | None = None) -> Memory:
    """Return what the server's processes hold at the peak of a burst, beyond the stored weights.

    ``held``: bytes of weights, keys and values at rest, where the processes hold much besides; then what they hold at
    rest does not count, and what they grow by does.
    """
    server = runner.server(workload.capacity())
    server.begin_peak()
    workload.run(runner, Unwatched())
    peak, resting = server.peak(), server.resting
    if held is not None:
        peak, resting = peak - resting + held, held
    above = max(0, peak - runner.stored_bytes)
    added = {"resident_peak": float(max(0, peak - resting)), "runtime_bytes": float(resting)}
    return Memory({"serve": above}, 0, added)
