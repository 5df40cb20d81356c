"""``device=auto``: the NVIDIA GPU where there is one that this torch can use, else the CPU."""

from __future__ import annotations

import ctypes
import logging
import runpy
from importlib.util import find_spec
from pathlib import Path

from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda

log = logging.getLogger(__name__)


def detect_device() -> Cpu | Cuda:
    """Decided without importing torch; says so where a GPU has to stay idle."""
    if not gpus():
        return Cpu()
    if cuda_of_torch() is None:
        log.warning("a GPU is here, but this torch was built without CUDA: using the CPU")
        return Cpu()
    return Cuda()


def gpus(driver: str = "libcuda.so.1") -> int:
    """That NVIDIA's driver gives this process, which ``CUDA_VISIBLE_DEVICES`` restricts."""
    count = ctypes.c_int()
    try:
        cuda = ctypes.CDLL(driver)
        failed = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return 0 if failed else count.value


def cuda_of_torch() -> str | None:
    """The CUDA version that torch was built for."""
    spec = find_spec("torch")
    folders = spec.submodule_search_locations if spec else None
    version = next((Path(folder) / "version.py" for folder in folders or ()), None)
    found: str | None = runpy.run_path(str(version)).get("cuda") if version and version.is_file() else None
    return found
