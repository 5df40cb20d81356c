"""Watches for runs on an NVIDIA GPU: a stopwatch of the GPU's own events, and the peaks of torch's allocator."""

from __future__ import annotations

from itertools import pairwise
from time import process_time
from typing import Any

from typing_extensions import override

from objectives.protocols.running import PhaseObserver, Stopwatch
from objectives.types import Phase, Timing


class EventStopwatch(Stopwatch):
    """Times phases on the GPU's own clock, between events in its stream; nothing is waited for before the end."""

    @override
    def start(self, laps: int) -> None:
        import torch

        torch.cuda.synchronize()
        self._phases: list[Phase] = []
        self._began = process_time()
        self._events = [self._stamp()]

    @staticmethod
    def _stamp() -> Any:
        import torch

        make: Any = torch.cuda.Event  # has no types
        event = make(enable_timing=True)
        event.record()
        return event

    @override
    def end_phase(self, phase: Phase, held: object = None) -> None:
        self._events.append(self._stamp())
        self._phases.append(phase)

    @override
    def timing(self, items: int) -> Timing:
        from objectives.devices.stopwatch import timing_of

        self._events[-1].synchronize()
        cpu = process_time() - self._began
        laps = [earlier.elapsed_time(later) / 1e3 for earlier, later in pairwise(self._events)]
        return timing_of(self._phases, laps, cpu, items)


class AllocatorPeaks(PhaseObserver):
    """Notes what torch's allocator hands out.

    ``peaks``: by phase, the most bytes above the start; ``reserved``: the most bytes that it took from the driver;
    ``cache``: bytes of the cache that was held at last.
    """

    def __init__(self) -> None:
        self.peaks: dict[Phase, int] = {}
        self.reserved = self.cache = 0

    @override
    def start(self, laps: int) -> None:
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._resting = torch.cuda.memory_allocated()

    @override
    def end_phase(self, phase: Phase, held: object = None) -> None:
        import torch

        from objectives.devices.allocations import cache_bytes

        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - self._resting
        self.peaks[phase] = max(peak, self.peaks.get(phase, 0))
        self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())
        self.cache = cache_bytes(held)
        torch.cuda.reset_peak_memory_stats()
