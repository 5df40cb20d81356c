"""Several devices over a recorded grid, on a clock of their own: a study of an hour is replayed in seconds.

A trial takes on its device what its stages took when they were recorded. What one device made or scored the others find
in the cache, statistics included. What the sampler takes to ask is its own, and real.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from replay import Grid, Replay

from objectives.protocols.candidate import Candidate
from objectives.types import Gate, Outcome
from search.study import trials, waiting


class Due(Future[Any]):
    """A result that is there at the second ``at`` of the fleet's clock; who asks for it waits until then."""

    def __init__(self, fleet: Fleet, at: float, value: Any) -> None:
        super().__init__()
        self.fleet, self.at = fleet, at
        self._value = value

    def result(self, timeout: float | None = None) -> Any:
        self.fleet.wait_until(self.at)
        return self._value

    def done(self) -> bool:
        return self.at <= self.fleet.now


@dataclass
class Fleet(Replay):
    """``devices``: how many; ``now``: seconds since the start; ``spent``: those of all devices together."""

    devices: int = 8
    now: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._free = [0.0] * self.devices

    @property
    def slots(self) -> int:
        return self.devices

    def wait_until(self, at: float) -> None:
        self.now += time.perf_counter() - self._left
        self.now = max(self.now, at)
        self._left = time.perf_counter()

    def first_done(self, futures: Sequence[Due], *_: object) -> None:
        self.wait_until(min(future.at for future in futures))

    def _on_a_device(self, work: Callable[[], Any]) -> Due:
        """Let the device that is free first do ``work``, which adds its seconds to ``spent``."""
        self.wait_until(self.now)
        before, value = self.spent, work()
        device = min(range(self.devices), key=self._free.__getitem__)
        self._free[device] = max(self.now, self._free[device]) + self.spent - before
        self._left = time.perf_counter()
        return Due(self, self._free[device], value)

    def __exit__(self, *_: object) -> None:
        self.wait_until(self.now)

    def prepare(self) -> Future[Mapping[str, str]]:
        loads = self.grid.recorded["load_seconds"]
        self._free = [loads] * self.devices
        self.spent += loads * self.devices
        return Due(self, loads, {"device": "replay"})

    def evaluate(self, candidate: Candidate, gate: Gate | None = None) -> Future[Outcome]:
        return self._on_a_device(lambda: self._outcome(candidate, gate))

    def predict_losses(self, candidates: Sequence[Candidate]) -> Future[list[float]]:
        return self._on_a_device(lambda: super(Fleet, self).predict_losses(candidates).result())


@contextmanager
def on_its_clock(fleet: Fleet) -> Iterator[None]:
    """Let the loop wait by the fleet's clock."""
    with (
        mock.patch.object(trials, "first_done", fleet.first_done),
        mock.patch.object(waiting, "first_done", fleet.first_done),
    ):
        yield


def fleet_of(grid: Grid, devices: int, seed: int) -> Fleet:
    return Fleet(grid, seed=seed, devices=devices)
