"""Protocols of what watches a run: it is told where the phases end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

from objectives.types import Phase, Timing


class PhaseObserver(Protocol):
    """Observes the phases of a run: a workload calls it where each phase ends.

    Implementations time the phase, measure its memory, or trace its shapes. Life: ``start`` when inputs are ready, then
    ``end_phase`` at the end of every phase.
    """

    @abstractmethod
    def start(self, laps: int) -> None:
        """Start to observe a run of ``laps`` phases, as its first one begins."""

    @abstractmethod
    def end_phase(self, phase: Phase, held: object = None) -> None:
        """Close ``phase``, as the next one begins. ``held``: what stays alive between phases, a KV cache."""


class Stopwatch(PhaseObserver, Protocol):
    """A watch that tells the time."""

    @abstractmethod
    def timing(self, items: int) -> Timing:
        """Return the timing of the one run since ``start``, which yielded ``items`` output tokens or samples."""


EndPhase = Callable[[Phase, object], None]
"""The function that is called where a phase of a run ends, with what stays alive between phases: see
:class:`PhaseObserver`."""
