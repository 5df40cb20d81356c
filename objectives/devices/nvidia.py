"""Asks NVIDIA's management library (NVML) about one GPU: clocks, heat, who else computes on it, energy.

NVML counts the GPUs of the machine, torch those that ``CUDA_VISIBLE_DEVICES`` leaves, in an order of its own; hence
the GPU is matched by its UUID. Every query stands by itself: one that a card, a driver or a container does not answer
is left out. Nothing raises where ``nvidia-ml-py`` or a driver is missing.

Written from NVML's documentation (https://docs.nvidia.com/deploy/nvml-api) and the names in nvidia-ml-py 13; ran on an
H200 (docs/benchmarks/gpu.md).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

_TEMPERATURE_GPU, _CLOCK_SM = 0, 1
_SLOWED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""Software power cap, hardware slowdown, software thermal, hardware thermal, hardware power brake (nvml.h)."""


def conditions(index: int) -> dict[str, float]:
    """Return what goes on now on torch's GPU ``index``: some of :data:`objectives.metrics.CONDITIONS`.

    ``other_processes`` is left out while NVML does not list this process: either it does not compute yet, or it is in
    a container whose process numbers are not the driver's, and then it could not be told from others.
    """
    gpu = _Gpu.find(index)
    if gpu is None:
        return {}
    temperature = gpu.ask(("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), _TEMPERATURE_GPU)
    megahertz = gpu.ask(("nvmlDeviceGetClockInfo",), _CLOCK_SM)
    reasons = gpu.ask(("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"))
    readings = {
        "temperature": temperature,
        "sm_clock": None if megahertz is None else megahertz * 1e6,
        "throttled": None if reasons is None else bool(reasons & _SLOWED),
        "other_processes": gpu.others(),
    }
    return {name: float(value) for name, value in readings.items() if value is not None}


def process_memory(index: int) -> int | None:
    """Return the bytes that the driver charges to this process on torch's GPU ``index``, CUDA's context included.

    None where the driver does not say.
    """
    gpu = _Gpu.find(index)
    charged = [process.usedGpuMemory for process in gpu.processes() if process.pid == os.getpid()] if gpu else []
    known = [int(value) for value in charged if value is not None]  # None: the driver does not say
    return sum(known) if known else None


def total_energy(index: int) -> float | None:
    """Return the joules that torch's GPU ``index`` used since the driver was loaded; GPUs before Volta do not tell."""
    gpu = _Gpu.find(index)
    millijoules = gpu.ask(("nvmlDeviceGetTotalEnergyConsumption",)) if gpu else None
    return None if millijoules is None else millijoules / 1000.0


def driver_version() -> str | None:
    """Return the version of the loaded driver, such as ``570.86.15``."""
    nvml = _library()
    version = None if nvml is None else _first_answer(nvml, ("nvmlSystemGetDriverVersion",))
    return None if version is None else str(version)


class _Gpu:
    """One GPU, as NVML knows it."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    @classmethod
    def find(cls, index: int) -> _Gpu | None:
        """Return the GPU that torch calls ``index``; None where NVML does not know it."""
        nvml = _library()
        if nvml is None:
            return None
        uuid = _uuid(index)
        if uuid is None:
            handle = _first_answer(nvml, ("nvmlDeviceGetHandleByIndex",), index)
        else:  # a slice of a card has a UUID of its own; never another card's facts
            by_uuid = (_first_answer(nvml, ("nvmlDeviceGetHandleByUUID",), f"{kind}-{uuid}") for kind in ("GPU", "MIG"))
            handle = next((handle for handle in by_uuid if handle is not None), None)
        return None if handle is None else cls(nvml, handle)

    def ask(self, names: tuple[str, ...], *arguments: object) -> Any:
        """Return the answer to the first of these queries that is supported, else None."""
        return _first_answer(self._nvml, names, self._handle, *arguments)

    def processes(self) -> list[Any]:
        """Return the processes that compute here, with ``pid`` and ``usedGpuMemory`` in bytes."""
        return self.ask(("nvmlDeviceGetComputeRunningProcesses",)) or []

    def others(self) -> int | None:
        """Return how many of the processes are not this one; None where this one is not among them."""
        numbers = {process.pid for process in self.processes()}
        return len(numbers) - 1 if os.getpid() in numbers else None


def _library() -> Any:
    """Return the module ``pynvml`` with a driver behind it, else None. Starting it again only counts one up."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _first_answer(nvml: Any, names: tuple[str, ...], *arguments: object) -> Any:
    """Return the answer to the first of these queries that is supported, else None.

    Newer names come first: NVIDIA drops the old ones from the module, and old drivers lack the new ones.
    """
    for query in filter(None, (getattr(nvml, name, None) for name in names)):
        try:
            return query(*arguments)
        except nvml.NVMLError:
            continue
    return None


def _uuid(index: int) -> str | None:
    """Return the GPU's UUID without its prefix; None where torch has no CUDA."""
    import torch

    if not torch.cuda.is_available():
        return None
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return None if uuid is None else str(uuid)
