"""The servers of one runner, kept by their capacity, and the memory of one under load."""

from __future__ import annotations

from collections.abc import Callable

from objectives.devices.stopwatch import Unwatched
from objectives.protocols.serving import Capacity, LoadingWorkload, Server, ServingRunner
from objectives.types import Memory

MOST = 8
"""The most servers of one model at a time: at the end of a study the members of its front run in turns."""


class KeptServers:
    """The servers that run, by capacity, in the order of use; the oldest end where there are more than ``MOST``."""

    def __init__(self) -> None:
        self._running: dict[Capacity, Server] = {}

    def get(self, capacity: Capacity, start: Callable[[Capacity], Server]) -> Server:
        """Return the server of that capacity; ``start`` makes one where none runs."""
        server = self._running.pop(capacity, None)
        if server is None:
            for oldest in list(self._running)[: max(0, len(self._running) - MOST + 1)]:
                del self._running[oldest]
            server = start(capacity)
        self._running[capacity] = server
        return server


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
