"""Parts of a problem that misbehave on purpose, importable by a spawned worker."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from objectives.errors import Unsupported
from objectives.types import Head, Score, Timing


@dataclass(frozen=True, kw_only=True)
class InstantTask:
    """Scores at once."""

    @property
    def head(self) -> Head:
        return "causal_lm"

    def calibration(self, model: Any) -> dict[str, list[Any]]:
        import torch

        return {"any": [torch.arange(32).view(2, 16)]}

    def evaluate(self, model: Any) -> Score:
        return Score(0.5, 0.01, (0.0, 1.0))


Fault = Literal["none", "kill", "segfault", "exit", "raise", "hang", "no_memory", "unsupported", "pid"]


@dataclass(frozen=True, kw_only=True)
class FaultyWorkload:
    """Runs in no time, or meets ``fault``."""

    fault: Fault = "none"
    batch_size: int = 1

    @property
    def head(self) -> Head:
        return "causal_lm"

    def run(self, model: Any, device: Any) -> Timing:
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "segfault":
            ctypes.string_at(0)
        if self.fault == "exit":
            os._exit(3)
        if self.fault == "raise":
            raise ValueError("a bug")
        if self.fault == "hang":
            time.sleep(600)
        if self.fault == "no_memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        if self.fault == "unsupported":
            raise Unsupported("no kernel")
        if self.fault == "pid":
            sys.stderr.flush()
            return Timing((float(os.getpid()),), 1)
        return Timing((0.001,), 1)
