"""``device=auto``: the CPU, until the CUDA path has been run and measured; a GPU is asked for by ``device=cuda``."""

from __future__ import annotations

import logging
from pathlib import Path

from objectives.devices.cpu import Cpu

log = logging.getLogger(__name__)


def detect_device() -> Cpu:
    """The CPU; says so where an NVIDIA driver is loaded. Decided without importing torch."""
    if Path("/dev/nvidiactl").exists():
        log.warning(
            "a GPU is here, but paretune's CUDA path has not been verified yet: using the CPU (device=cuda asks)"
        )
    return Cpu()
