"""A stopwatch for devices that run what they are given before they return, or that can be waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from time import perf_counter

from typing_extensions import override

from objectives.devices.helpers import cpu_seconds
from objectives.protocols.running import PhaseObserver, Stopwatch
from objectives.types import Phase, Timing


class WallStopwatch(Stopwatch):
    """Takes the wall and CPU seconds of one run; ``synchronize`` is called before every stamp."""

    def __init__(self, synchronize: Callable[[], object] = lambda: None) -> None:
        self._synchronize = synchronize

    @override
    def start(self, laps: int) -> None:
        self._phases: list[Phase] = []
        self._synchronize()
        self._began = self._ended = cpu_seconds()
        self._stamps = [perf_counter()]

    @override
    def end_phase(self, phase: Phase, held: object = None) -> None:
        self._synchronize()
        self._stamps.append(perf_counter())
        self._ended = cpu_seconds()
        self._phases.append(phase)

    @override
    def timing(self, items: int) -> Timing:
        laps = [later - earlier for earlier, later in pairwise(self._stamps)]
        return timing_of(self._phases, laps, self._ended - self._began, items)


def timing_of(phases: Sequence[Phase], laps: Sequence[float], cpu: float, items: int) -> Timing:
    """Return the timing of one run from its phases and their seconds; ``cpu``: its CPU seconds.

    The first token comes at the end of the prefill, which is why its time includes that of encoding.
    """
    seconds = {name: tuple(lap for phase, lap in zip(phases, laps) if phase == name) for name in set(phases)}
    encode, prefill = seconds.get("encode", ()), seconds.get("prefill", ())
    ttft = (sum(encode) + sum(prefill),) if prefill else ()
    return Timing((sum(laps),), items, encode, ttft, seconds.get("decode", ()), (cpu,))


class Unwatched(PhaseObserver):
    """Observes nothing, for a run that only has to happen."""

    @override
    def start(self, laps: int) -> None:
        pass

    @override
    def end_phase(self, phase: Phase, held: object = None) -> None:
        pass
