"""Sets the environment and the threads of a process, so that models run in it as fast as they were measured.

OpenMP reads its variables when it is loaded, which is when torch is: setting them later changes nothing. Four tokens
took 7.7 s where waiting threads span, and 0.4 s where they slept (two threads on two busy cores). Nothing here imports
torch before it is asked to.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from objectives.devices import heap
from objectives.models.inspection.folders import MANIFEST

log = logging.getLogger(__name__)

ENVIRONMENT: Mapping[str, str] = {
    "MALLOC_ARENA_MAX": "1",  # one heap, so that freed memory can be given back and peaks repeat
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep: spinning costs 20-56 % noise on a shared machine
    "GOMP_SPINCOUNT": "5000",  # but not at once: to be woken takes longer than a small product (docs/log.md)
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "KINETO_LOG_LEVEL": "99",  # torch's profiler, which counts allocations, would report every start
}
"""Environment variables of a process that measures."""

OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""The variables that decide about speed and are read when OpenMP is loaded."""


def measured_with(machine: Mapping[str, str]) -> dict[str, Any]:
    """Return what a manifest says of the process that measured: threads, and OpenMP's variables where they were set.

    ``machine``: what that process noted of itself (:mod:`objectives.measuring.fingerprint`).
    """
    words = machine.get("omp_wait_policy", "").removeprefix("default").split()
    environment = {OPENMP[word.isdecimal()]: word for word in words}  # a policy is a word, a count a number
    return {"threads": int(machine["threads"]), "environment": environment}


def here(threads: int) -> dict[str, Any]:
    """Return the settings of this process, in the form of :func:`measured_with`."""
    return {"threads": threads, "environment": {name: os.environ[name] for name in OPENMP if name in os.environ}}


def of_folder(folder: Path, manifest: str = MANIFEST) -> Mapping[str, Any]:
    """Return what a winner's manifest says of the process; empty where it says nothing, or is no manifest."""
    try:
        process = json.loads((folder / manifest).read_text(encoding="utf-8"))["process"]
        return process if isinstance(process, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def set_environment(process: Mapping[str, Any]) -> None:
    """Set what OpenMP reads, where it is not loaded yet; else one log line names what differs and where to set it."""
    wanted = {str(name): str(value) for name, value in process.get("environment", {}).items() if name in OPENMP}
    different = {name: value for name, value in wanted.items() if os.environ.get(name) != value}
    if different and _openmp_is_loaded():
        _say(
            "this model was measured with other settings of OpenMP, which was loaded before it and may be slower: "
            f"start the process with {' '.join(f'{name}={value}' for name, value in different.items())}, "
            "or call objectives.load before torch is imported"
        )
        return
    os.environ.update(different)


def set_threads(process: Mapping[str, Any]) -> None:
    """Let torch use as many threads as were measured, and the allocator keep what is freed; imports torch."""
    import torch

    threads = process.get("threads")
    if not isinstance(threads, int) or threads < 1:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < threads:
        _say(f"this model was measured with {threads} threads, this process may run on {cores} cores: it may be slower")
    torch.set_num_threads(min(threads, cores))
    heap.one_arena()
    heap.keep_freed()


def _openmp_is_loaded() -> bool:
    """Return whether a runtime of OpenMP is in this process already; where one cannot look, whether torch is."""
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return "torch" in sys.modules
    return any(name in mapped for name in ("libgomp", "libiomp", "libomp"))


@cache
def _say(text: str) -> None:
    """Log ``text`` as a warning, once in a process."""
    log.warning(text)
