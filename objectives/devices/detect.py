"""``device=auto``: the GPU when a driver is loaded, else the CPU. Decided without importing torch."""

from __future__ import annotations

from pathlib import Path

from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda


def detect_device() -> Cpu | Cuda:
    """Look for the NVIDIA driver's control device."""
    return Cuda() if Path("/dev/nvidiactl").exists() else Cpu()
