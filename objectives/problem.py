"""What a study holds fixed. Free of torch at import, so that it can be built and checked by the driver."""

from __future__ import annotations

from dataclasses import dataclass

from objectives.cache import Cache
from objectives.measuring.interleaved import Interleaved
from objectives.types import Candidate, Device, Model, Task

KEPT_BYTES = 1 << 30
"""Weights of compressed models that stay in memory beside the one in use."""


@dataclass(frozen=True)
class Problem:
    """Model, task, device, how to time, the baseline that every candidate is compared with, and what keeps results."""

    model: Model
    task: Task
    device: Device
    timing: Interleaved
    baseline: Candidate
    cache: Cache | None = None
