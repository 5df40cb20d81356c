"""Measures how fast the machine is just now, by a small fixed workload.

A processor that shares its core or its caches with other machines of its host slows down for seconds, and no counter
in here says so. It does not slow every kernel alike: while a product of fixed size took a fifth longer than at best, a
model in 8 bits was a tenth slower beside the dense one than before (docs/log.md). So the product is timed at the ends
of every turn, and a round is compared with the product's time at the machine's best, over the last minutes: a machine
that stays slow is taken as it is. The product's noise is independent of the timed runs, so choosing rounds by it
favours nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np

from objectives.types import Timing

_LEAST_SECONDS, _MOST_REPEATS = 1e-3, 64
"""Least seconds of one probe, as shorter ones tell more about the clock, and most runs of one, as a clock may stand
still."""
_TICK = 1e-9
_AROUND_SECONDS = 0.5
"""Seconds for which a probe still tells about now; a state lasts for seconds."""
_MEMORY_SECONDS = 180.0
_BEST = 0.1
"""Quantile that counts as the best: the very best is an accident."""


class MachineSpeed:
    """The speed of the machine, probed by a fixed workload.

    ``run``: one pass of that workload; ``seconds``: returns the seconds of a timing by the clock of the settings.
    """

    def __init__(self, run: Callable[[], Timing], seconds: Callable[[Timing], float]) -> None:
        self._run, self._seconds = run, seconds
        self._repeats = 0
        self._probes: deque[tuple[float, float]] = deque()
        self._levels: deque[tuple[float, float]] = deque()

    def probe(self) -> None:
        """Time the workload once: as many passes as a probe takes, a number that the first probe finds."""
        if not self._repeats:
            self._run()
            wanted = round(_LEAST_SECONDS / max(self._seconds(self._run()), _TICK))
            self._repeats = max(1, min(_MOST_REPEATS, wanted))
        took = sum(self._seconds(self._run()) for _ in range(self._repeats))
        self._probes.append((perf_counter(), took))

    def level(self, since: float) -> float:
        """Return the seconds of a probe now: the median of those after ``since``, at least of the last half second."""
        now = perf_counter()
        start = min(since, now - _AROUND_SECONDS)
        _forget(self._probes, start)
        level = max(_TICK, median(seconds for _, seconds in self._probes))
        self._levels.append((now, level))
        return level

    @property
    def best(self) -> float:
        """Return the level at the machine's best, over the last three minutes."""
        _forget(self._levels, perf_counter() - _MEMORY_SECONDS)
        return float(np.quantile([level for _, level in self._levels], _BEST))


def _forget(values: deque[tuple[float, float]], before: float) -> None:
    """Drop the values from before ``before``, but keep the latest one."""
    while len(values) > 1 and values[0][0] < before:
        values.popleft()
