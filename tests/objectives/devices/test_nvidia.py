"""NVML's facts from a stand-in of the module ``pynvml``, with names and units of nvidia-ml-py 13."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from objectives.devices import nvidia
from objectives.metrics import CONDITIONS

UUID = "6c3e3fd1-5e1c-4a0b-8a4e-0f6b6f0f9a11"
REASONS = {
    "GpuIdle": 0x1,
    "ApplicationsClocksSetting": 0x2,
    "SwPowerCap": 0x4,
    "HwSlowdown": 0x8,
    "SyncBoost": 0x10,
    "SwThermalSlowdown": 0x20,
    "HwThermalSlowdown": 0x40,
    "HwPowerBrakeSlowdown": 0x80,
    "DisplayClockSetting": 0x100,
}


class NVMLError(Exception):
    """As pynvml's: the root of its exceptions."""


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


class Card:
    """Answers of one GPU; a query that is not among them is not supported."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "nvmlDeviceGetTemperatureV": 61,
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetCurrentClocksEventReasons": REASONS["SwPowerCap"] | REASONS["SyncBoost"],
            "nvmlDeviceGetComputeRunningProcesses": [process(os.getpid(), 5 << 30), process(1, 7), process(1, 8)],
            "nvmlDeviceGetTotalEnergyConsumption": 12_345,
        }

    def query(self, name: str) -> Callable[..., Any]:
        def answer(handle: object, *arguments: object) -> Any:
            assert handle == "card"
            assert arguments == {"nvmlDeviceGetTemperatureV": (0,), "nvmlDeviceGetClockInfo": (1,)}.get(name, ())
            if name not in self.answers:
                raise NVMLError("Not Supported")
            return self.answers[name]

        return answer


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``pynvml`` with the one ``card`` at index 2, which torch calls 0."""
    module: Any = ModuleType("pynvml")
    module.card = Card()
    module.NVMLError = NVMLError
    module.nvmlInit = lambda: None
    module.nvmlSystemGetDriverVersion = lambda: "570.86.15"
    for name in module.card.answers:
        setattr(module, name, module.card.query(name))

    def by_uuid(uuid: str) -> str:
        if uuid != f"GPU-{UUID}":
            raise NVMLError("Not Found")
        return "card"

    module.nvmlDeviceGetHandleByUUID = by_uuid
    module.nvmlDeviceGetHandleByIndex = lambda index: "card" if index == 2 else "another card"
    monkeypatch.setitem(sys.modules, "pynvml", module)
    show_torch(monkeypatch, UUID)
    return module


def show_torch(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    """A torch with one GPU of that UUID."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=[uuid][index]))


def test_conditions_are_in_base_units_under_known_names(nvml: Any) -> None:
    found = nvidia.conditions(0)
    assert found == {"temperature": 61.0, "sm_clock": 1.98e9, "throttled": 1.0, "other_processes": 1.0}
    assert all(type(value) is float for value in found.values())
    assert set(found) <= set(CONDITIONS)


@pytest.mark.parametrize(("reason", "bit"), REASONS.items())
def test_clocks_lowered_for_heat_or_power_are_throttled_and_others_are_not(nvml: Any, reason: str, bit: int) -> None:
    nvml.card.answers["nvmlDeviceGetCurrentClocksEventReasons"] = bit
    slowed = {"SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown"}
    assert nvidia.conditions(0)["throttled"] == float(reason in slowed)


@pytest.mark.parametrize(
    ("query", "lost"),
    [
        ("nvmlDeviceGetTemperatureV", "temperature"),
        ("nvmlDeviceGetClockInfo", "sm_clock"),
        ("nvmlDeviceGetCurrentClocksEventReasons", "throttled"),
        ("nvmlDeviceGetComputeRunningProcesses", "other_processes"),
    ],
)
def test_an_unsupported_query_loses_its_own_answer_only(nvml: Any, query: str, lost: str) -> None:
    everything = set(nvidia.conditions(0))
    del nvml.card.answers[query]
    assert set(nvidia.conditions(0)) == everything - {lost}


def test_an_old_driver_is_asked_by_the_old_names(nvml: Any) -> None:
    del nvml.card.answers["nvmlDeviceGetTemperatureV"]
    del nvml.nvmlDeviceGetCurrentClocksEventReasons
    nvml.nvmlDeviceGetTemperature = lambda handle, sensor: 55
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: REASONS["GpuIdle"]
    found = nvidia.conditions(0)
    assert (found["temperature"], found["throttled"]) == (55.0, 0.0)


def test_others_are_not_counted_where_this_process_is_not_listed(nvml: Any) -> None:
    nvml.card.answers["nvmlDeviceGetComputeRunningProcesses"] = [process(1, 7)]
    assert "other_processes" not in nvidia.conditions(0)
    assert nvidia.process_memory(0) is None


def test_memory_is_what_the_driver_charges_to_this_process(nvml: Any) -> None:
    assert nvidia.process_memory(0) == 5 << 30
    nvml.card.answers["nvmlDeviceGetComputeRunningProcesses"] = [process(os.getpid(), None)]
    assert nvidia.process_memory(0) is None


def test_energy_is_in_joules(nvml: Any) -> None:
    assert nvidia.total_energy(0) == pytest.approx(12.345)
    del nvml.card.answers["nvmlDeviceGetTotalEnergyConsumption"]
    assert nvidia.total_energy(0) is None


def test_the_driver_tells_its_version(nvml: Any) -> None:
    assert nvidia.driver_version() == "570.86.15"


def test_a_slice_of_a_card_is_found_by_its_own_uuid(nvml: Any) -> None:
    nvml.nvmlDeviceGetHandleByUUID = {f"MIG-{UUID}": "card"}.get
    assert nvidia.total_energy(0) == pytest.approx(12.345)


def test_a_card_that_nvml_does_not_know_gets_no_other_cards_facts(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    show_torch(monkeypatch, "0" * 36)
    nothing(0)


def test_a_torch_without_uuids_goes_by_index(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace())
    assert nvidia.total_energy(2) == pytest.approx(12.345)


def nothing(index: int) -> None:
    """Of what is told about one GPU."""
    assert nvidia.conditions(index) == {}
    assert nvidia.process_memory(index) is None
    assert nvidia.total_energy(index) is None


def test_without_the_module_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    nothing(0)
    assert nvidia.driver_version() is None


def test_without_a_driver_nothing_is_told(nvml: Any) -> None:
    def refuse() -> None:
        raise NVMLError("Driver Not Loaded")

    nvml.nvmlInit = refuse
    nothing(0)
    assert nvidia.driver_version() is None
