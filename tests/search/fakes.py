"""Parts of a problem that misbehave on purpose, importable by a spawned worker."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from objectives.errors import Unsupported
from objectives.protocols.running import PhaseObserver
from objectives.tasks.partial_scores import batches
from objectives.types import Head, Phase, Score


@dataclass(frozen=True, kw_only=True)
class InstantTask:
    """Scores at once; its first example is the process that scored."""

    @property
    def head(self) -> Head:
        return "causal_lm"

    def calibration(self, model: Any) -> dict[str, list[Any]]:
        import torch

        return {"any": [torch.arange(32).view(2, 16)]}

    def evaluate(self, model: Any) -> Score:
        return Score(0.5, 0.01, (float(os.getpid()), 1.0))


@dataclass(frozen=True, kw_only=True)
class SlowTask(InstantTask):
    """Scores ten examples, one after the other; the first process that does is killed in their midst.

    ``killed``: the file that this leaves.
    """

    killed: str

    def evaluate(self, model: Any) -> Score:
        for (place,) in batches(range(10), 1):
            time.sleep(0.15)
            if place == 5 and not os.path.exists(self.killed):
                open(self.killed, "wb").close()
                time.sleep(1)
                meet("kill")
        return super().evaluate(model)


Fault = Literal["none", "kill", "segfault", "exit", "raise", "hang", "no_memory", "allocate", "unsupported"]


@dataclass(frozen=True, kw_only=True)
class FaultyWorkload:
    """Reads two tokens, or meets ``fault`` when it is timed: a prediction runs it as well, on shapes."""

    fault: Fault = "none"
    batch_size: int = 1
    items: int = 1
    tokens_read: int = 2

    @property
    def head(self) -> Head:
        return "causal_lm"

    def representative_runs(self) -> dict[Phase, FaultyWorkload]:
        return {"prefill": self}

    def run(self, model: Any, watch: PhaseObserver) -> None:
        import torch

        from objectives.devices.stopwatch import WallStopwatch

        if isinstance(watch, WallStopwatch):
            meet(self.fault)
        with torch.inference_mode():
            ids = torch.ones(1, self.tokens_read, dtype=torch.long)
            watch.start(1)
            model.module(input_ids=ids)
            watch.end_phase("prefill")


def meet(fault: Fault) -> None:
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "exit":
        os._exit(3)
    if fault == "raise":
        raise ValueError("a bug")
    if fault == "hang":
        time.sleep(600)
    if fault == "no_memory":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
    if fault == "allocate":
        import torch

        torch.empty(8_000_000_000, dtype=torch.uint8)  # address space only: no page is touched
    if fault == "unsupported":
        raise Unsupported("no kernel")
