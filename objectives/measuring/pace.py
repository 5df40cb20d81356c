"""How fast the machine is just now, told by a small fixed workload.

A processor that shares its core or its caches with other machines of its host slows down for seconds, and no counter
in here says so. It does not slow every kernel alike: while a product of fixed size took a fifth longer than at best, a
model in 8 bits was a tenth slower beside the dense one than before (docs/log.md). So the product is timed at the ends
of every turn, and a round is compared with what it takes at the machine's best, over the last minutes: a machine that
stays slow is the machine there is. The product's noise is not that of what is timed, so choosing by it favours nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np

from objectives.types import Timing

_LEAST_SECONDS, _MOST_REPEATS = 1e-3, 64
"""Of one probe: shorter ones tell more about the clock; a clock that stands still is not waited for."""
_TICK = 1e-9
_AROUND_SECONDS = 0.5
"""Probes as old as that still tell about now; a state lasts for seconds."""
_MEMORY_SECONDS = 180.0
_BEST = 0.1
"""The quantile that counts as the best: the very best is an accident."""


class MachineSpeed:
    """``run``: one pass of the fixed workload; ``seconds``: of one of its timings, by the clock that is asked for."""

    def __init__(self, run: Callable[[], Timing], seconds: Callable[[Timing], float]) -> None:
        self._run, self._seconds = run, seconds
        self._repeats = 0
        self._probes: deque[tuple[float, float]] = deque()
        self._levels: deque[tuple[float, float]] = deque()

    def probe(self) -> None:
        """Time the workload once."""
        if not self._repeats:
            self._run()
            wanted = round(_LEAST_SECONDS / max(self._seconds(self._run()), _TICK))
            self._repeats = max(1, min(_MOST_REPEATS, wanted))
        took = sum(self._seconds(self._run()) for _ in range(self._repeats))
        self._probes.append((perf_counter(), took))

    def level(self, since: float) -> float:
        """Seconds of a probe now: the median of those after ``since``, and of the last half second at least."""
        now = perf_counter()
        start = min(since, now - _AROUND_SECONDS)
        _forget(self._probes, start)
        found = max(_TICK, median(seconds for _, seconds in self._probes))
        self._levels.append((now, found))
        return found

    @property
    def best(self) -> float:
        """The level at the machine's best, over the last three minutes."""
        _forget(self._levels, perf_counter() - _MEMORY_SECONDS)
        return float(np.quantile([level for _, level in self._levels], _BEST))


def _forget(values: deque[tuple[float, float]], before: float) -> None:
    """Drop what is older, but for the latest."""
    while len(values) > 1 and values[0][0] < before:
        values.popleft()
