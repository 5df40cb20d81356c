"""Energy of runs, by the counters of the device that they run on (:mod:`objectives.devices.counters`).

Where there is no counter, or it may not be read, there is no meter: energy that nobody counted is absent, never zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from objectives.protocols.readings import Counter

Reading = tuple[float | None, ...]
"""Joules on every counter of a meter; None where it does not answer."""


@dataclass(frozen=True)
class EnergyMeter:
    """All counters of a device: ``start = meter.read()``, then ``meter.since(start)``."""

    counters: tuple[Counter, ...]

    def read(self) -> Reading:
        """Read all counters."""
        return tuple(counter.read() for counter in self.counters)

    def since(self, start: Reading) -> float | None:
        """Return the joules used since ``start``, all counters together; None where one of them does not answer."""
        total = 0.0
        for counter, before, now in zip(self.counters, start, self.read(), strict=True):
            if before is None or now is None:
                return None
            total += now - before if now >= before else now - before + counter.span
        return total if math.isfinite(total) else None

    def meaningful(self, joules: float, seconds: float) -> bool:
        """Return whether ``joules`` over ``seconds`` are at least one step of every counter, and one of its updates."""
        return all(joules >= counter.tick and seconds >= counter.period for counter in self.counters)


def find_meter(counters: Iterable[Counter]) -> EnergyMeter | None:
    """Return a meter of those ``counters`` that answer; None where none does."""
    answering = tuple(counter for counter in counters if counter.read() is not None)
    return EnergyMeter(answering) if answering else None
