"""Asks NVIDIA's driver and torch's own files about GPUs, without importing torch."""

from __future__ import annotations

import ctypes
import runpy
from importlib.util import find_spec
from pathlib import Path

DRIVER = "libcuda.so.1"


def gpus(driver: str = DRIVER) -> int:
    """Return how many GPUs NVIDIA's driver gives this process, which ``CUDA_VISIBLE_DEVICES`` restricts."""
    count = ctypes.c_int()
    try:
        cuda = ctypes.CDLL(driver)
        failed = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return 0 if failed else count.value


def cuda_of_torch() -> str | None:
    """Return the CUDA version that torch was built for."""
    spec = find_spec("torch")
    folders = spec.submodule_search_locations if spec else None
    version = next((Path(folder) / "version.py" for folder in folders or ()), None)
    cuda: str | None = runpy.run_path(str(version)).get("cuda") if version and version.is_file() else None
    return cuda


def total_memory(index: int, driver: str = DRIVER) -> int | None:
    """Return the bytes of memory of GPU ``index``; None where the driver does not say."""
    device, size = ctypes.c_int(), ctypes.c_size_t()
    try:
        cuda = ctypes.CDLL(driver)
        failed = cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), index)
        failed = failed or cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    except (OSError, AttributeError):
        return None
    return None if failed else size.value
