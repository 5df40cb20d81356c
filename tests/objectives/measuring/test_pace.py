"""The machine's pace: what a fixed workload takes now, over what it takes at best."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from objectives.measuring import pace
from objectives.measuring.pace import MachineSpeed
from objectives.types import Timing


class Workload:
    """Takes ``seconds`` on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now, self.seconds, self.runs = 0.0, seconds, 0
        monkeypatch.setattr(pace, "perf_counter", lambda: self.now)

    def __call__(self) -> Timing:
        self.runs += 1
        self.now += self.seconds
        return Timing((self.seconds,), 1, cpu=(self.seconds / 2,))


def wall(timing: Timing) -> float:
    return timing.latency[0]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], tuple[Workload, MachineSpeed]]:
    def made(seconds: float) -> tuple[Workload, MachineSpeed]:
        workload = Workload(monkeypatch, seconds)
        return workload, MachineSpeed(workload, wall)

    return made


def test_a_level_is_the_median_of_the_last_half_second(make: Callable[[float], tuple[Workload, MachineSpeed]]) -> None:
    workload, machine = make(0.01)
    for seconds, pause in ((0.09, 1.0), (0.01, 0.0), (0.03, 0.0), (0.02, 0.0)):
        workload.seconds = seconds
        machine.probe()
        workload.now += pause
    assert machine.level(workload.now) == pytest.approx(0.02)


def test_a_long_round_looks_back_to_its_start(make: Callable[[float], tuple[Workload, MachineSpeed]]) -> None:
    workload, machine = make(0.01)
    machine.probe()
    workload.now += 10.0
    began = workload.now
    for seconds in (0.02, 0.03, 0.04):
        workload.seconds = seconds
        machine.probe()
        workload.now += 20.0
    assert machine.level(began) == pytest.approx(0.03)


def test_the_latest_probe_counts_however_old_it_is(make: Callable[[float], tuple[Workload, MachineSpeed]]) -> None:
    workload, machine = make(0.01)
    machine.probe()
    workload.now += 1000.0
    assert machine.level(workload.now) == pytest.approx(0.01)


def test_best_is_a_low_level_but_no_accident(make: Callable[[float], tuple[Workload, MachineSpeed]]) -> None:
    workload, machine = make(0.01)
    for level in [0.004, *[0.01] * 20, *[0.02] * 20]:
        workload.seconds = level
        machine.probe()
        machine.level(workload.now)
        workload.now += 1.0
    assert machine.best == pytest.approx(0.01)


def test_what_was_best_is_forgotten_after_minutes(make: Callable[[float], tuple[Workload, MachineSpeed]]) -> None:
    workload, machine = make(0.01)
    for level in [0.01] * 10 + [0.03] * 200:
        workload.seconds = level
        machine.probe()
        machine.level(workload.now)
        workload.now += 1.0
    assert machine.best == pytest.approx(0.03)


def test_a_short_workload_is_repeated_until_a_probe_takes_a_millisecond(
    make: Callable[[float], tuple[Workload, MachineSpeed]],
) -> None:
    workload, machine = make(1e-4)
    machine.probe()
    assert workload.runs == 2 + 10  # one to get warm, one to see how long it takes
    machine.probe()
    assert workload.runs == 2 + 20
    assert machine.level(workload.now) == pytest.approx(1e-3)


def test_a_clock_that_stands_still_is_not_waited_for(make: Callable[[float], tuple[Workload, MachineSpeed]]) -> None:
    workload, machine = make(0.0)
    machine.probe()
    assert workload.runs < 100
    assert machine.level(0.0) == machine.best > 0


def test_the_clock_is_the_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload(monkeypatch, 0.02)
    machine = MachineSpeed(workload, lambda timing: timing.cpu[0])
    machine.probe()
    assert machine.level(0.0) == machine.best == pytest.approx(0.01)
