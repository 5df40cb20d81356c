"""RAPL on a made-up powercap tree, and NVML's counter on a made-up query."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from objectives.devices import nvidia
from objectives.devices.counters import Nvml, rapl
from objectives.devices.cuda import Cuda
from objectives.measuring.energy import EnergyMeter, find_meter

RANGE = 262_143_328_850
"""Microjoules of a usual package."""


def domain(root: Path, folder: str, name: str, microjoules: int, span: int = RANGE) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{span}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


def meter_of(root: Path) -> EnergyMeter:
    meter = find_meter(rapl(root))
    assert meter is not None
    return meter


def names(root: Path) -> list[str]:
    return [counter.name for counter in meter_of(root).counters]


def test_joules_are_the_difference_of_two_readings(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    meter = meter_of(tmp_path)
    start = meter.read()
    counter.write_text("7500000\n")
    assert meter.since(start) == pytest.approx(2.5)


def test_a_counter_that_turned_over_goes_on(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    meter = meter_of(tmp_path)
    start = meter.read()
    counter.write_text("2000000\n")
    assert meter.since(start) == pytest.approx(3.0)


def test_packages_and_their_memory_add_up_and_parts_of_a_package_do_not_count_twice(tmp_path: Path) -> None:
    counters = [
        domain(tmp_path, "intel-rapl:0", "package-0", 0),
        domain(tmp_path, "intel-rapl:0:0", "core", 0),
        domain(tmp_path, "intel-rapl:0:1", "dram", 0),
        domain(tmp_path, "intel-rapl:1", "package-1", 0),
        domain(tmp_path, "intel-rapl:2", "psys", 0),
        domain(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    assert names(tmp_path) == ["package-0", "dram", "package-1"]
    meter = meter_of(tmp_path)
    start = meter.read()
    for exponent, counter in enumerate(counters):
        counter.write_text(f"{10**exponent * 1_000_000}\n")
    assert meter.since(start) == pytest.approx(1.0 + 100.0 + 1000.0)


def forbid(monkeypatch: pytest.MonkeyPatch, forbidden: Path) -> None:
    """Make a file unreadable, to root as well."""
    read = Path.read_text

    def guarded(path: Path, *arguments: str, **more: str) -> str:
        if path == forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **more)

    monkeypatch.setattr(Path, "read_text", guarded)


def test_a_counter_that_may_not_be_read_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 0)
    forbid(monkeypatch, domain(tmp_path, "intel-rapl:0:0", "dram", 0))
    assert names(tmp_path) == ["package-0"]


def test_without_any_readable_counter_there_is_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_meter(rapl(tmp_path / "nowhere")) is None
    assert find_meter(rapl(tmp_path)) is None
    forbid(monkeypatch, domain(tmp_path, "intel-rapl:0", "package-0", 0))
    assert find_meter(rapl(tmp_path)) is None


def test_a_counter_that_vanishes_gives_no_joules_instead_of_zero(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    domain(tmp_path, "intel-rapl:1", "package-1", 0)
    meter = meter_of(tmp_path)
    start = meter.read()
    counter.unlink()
    assert meter.since(start) is None
    assert meter.since(meter.read()) is None


def test_a_difference_needs_a_tick_and_an_update(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = meter_of(tmp_path)
    assert meter.meaningful(joules=1.0, seconds=0.01)
    assert not meter.meaningful(joules=0.0, seconds=0.01)
    assert not meter.meaningful(joules=1.0, seconds=1e-4)
    assert not EnergyMeter((Nvml(0),)).meaningful(joules=1.0, seconds=0.05)
    assert EnergyMeter((Nvml(0),)).meaningful(joules=1.0, seconds=0.2)


def test_a_gpu_is_metered_by_its_own_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    joules = {1: 10.0}
    monkeypatch.setattr(nvidia, "total_energy", joules.get)
    assert find_meter(Cuda().energy()) is None
    meter = find_meter(Cuda(index=1).energy())
    assert meter is not None
    start = meter.read()
    joules[1] = 12.5
    assert meter.since(start) == pytest.approx(2.5)


def test_a_gpu_whose_driver_was_loaded_anew_gives_no_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    joules = {0: 10.0}
    monkeypatch.setattr(nvidia, "total_energy", joules.get)
    meter = EnergyMeter((Nvml(0),))
    start = meter.read()
    joules[0] = 1.0
    assert meter.since(start) is None
    assert math.isinf(Nvml(0).span)
