"""``device=auto``: the NVIDIA GPU where there is one that this torch can use, else the CPU."""

from __future__ import annotations

import logging

from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda
from objectives.devices.driver import cuda_of_torch, gpus

log = logging.getLogger(__name__)


def detect_device() -> Cpu | Cuda:
    """Choose the device without importing torch; warn where a GPU has to stay idle."""
    if not gpus():
        return Cpu()
    if cuda_of_torch() is None:
        log.warning("a GPU is here, but this torch was built without CUDA: using the CPU")
        return Cpu()
    return Cuda()
