"""A stopwatch for devices that run what they are given before they return, or that can be waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from time import perf_counter, process_time

from objectives.types import Phase, Timing


class WallStopwatch:
    """Wall and CPU seconds of one run; ``synchronize`` is called before every stamp."""

    def __init__(self, synchronize: Callable[[], object] = lambda: None) -> None:
        self._synchronize = synchronize

    def start(self, laps: int) -> None:
        """See ``PhaseObserver``."""
        self._phases: list[Phase] = []
        self._synchronize()
        self._began = self._ended = process_time()
        self._stamps = [perf_counter()]

    def end_phase(self, phase: Phase, held: object = None) -> None:
        """See ``PhaseObserver``."""
        self._synchronize()
        self._stamps.append(perf_counter())
        self._ended = process_time()
        self._phases.append(phase)

    def timing(self, items: int) -> Timing:
        """See ``Stopwatch``."""
        laps = [later - earlier for earlier, later in pairwise(self._stamps)]
        return timing_of(self._phases, laps, self._ended - self._began, items)


def timing_of(phases: Sequence[Phase], laps: Sequence[float], cpu: float, items: int) -> Timing:
    """One run from the seconds of its phases; the first token comes when the first prompt is read."""
    found = {name: tuple(end_phase for phase, end_phase in zip(phases, laps) if phase == name) for name in set(phases)}
    encode, prefill = found.get("encode", ()), found.get("prefill", ())
    ttft = (sum(encode) + sum(prefill),) if prefill else ()
    return Timing((sum(laps),), items, encode, ttft, found.get("decode", ()), (cpu,))


class Unwatched:
    """A watch that does not look: for a run that is only to happen."""

    def start(self, laps: int) -> None:
        """See ``PhaseObserver``."""

    def end_phase(self, phase: Phase, held: object = None) -> None:
        """See ``PhaseObserver``."""
