"""``device=auto``: the NVIDIA GPU where there is one that this torch can use, else the CPU."""

from __future__ import annotations

import logging
import runpy
from importlib.util import find_spec
from pathlib import Path

from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda

log = logging.getLogger(__name__)

DRIVER = Path("/dev/nvidiactl")
"""There once NVIDIA's driver is loaded."""


def detect_device() -> Cpu | Cuda:
    """Decided without importing torch; says so where a GPU has to stay idle."""
    if not DRIVER.exists():
        return Cpu()
    if _cuda_of_torch() is None:
        log.warning("a GPU is here, but this torch was built without CUDA: using the CPU")
        return Cpu()
    return Cuda()


def _cuda_of_torch() -> str | None:
    """The CUDA version that torch was built for."""
    spec = find_spec("torch")
    folders = spec.submodule_search_locations if spec else None
    version = next((Path(folder) / "version.py" for folder in folders or ()), None)
    found: str | None = runpy.run_path(str(version)).get("cuda") if version and version.is_file() else None
    return found
