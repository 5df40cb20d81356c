"""A runtime of a user's own whose engine misbehaves on purpose, on any CPU; importable by other processes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass as settings

from objectives.runtime.engines.engine import EngineRuntime
from objectives.runtime.engines.folder import Facts, write_facts
from objectives.runtime.packages import Packages
from objectives.settings import FORBID

if TYPE_CHECKING:
    from objectives.protocols.candidate import BuildContext, Candidate
    from objectives.protocols.running import Device
    from objectives.types import Head

Fault = Literal[
    "none", "SIGFPE", "SIGSEGV", "SIGABRT", "SIGILL", "SIGKILL", "divide", "hang", "exit", "leave", "raise", "memory",
    "wrong",
]  # fmt: skip


@settings(frozen=True, kw_only=True, config=FORBID)
class FaultyRuntime(EngineRuntime):
    """Meets ``fault`` in ``at``: when it is converted, opened or run."""

    fault: Fault = "none"
    at: Literal["open", "run", "write"] = "open"

    @property
    def name(self) -> str:
        return "faulty"

    @property
    def packages(self) -> Packages:
        return Packages("faulty", ("numpy",))

    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        return None if head == "causal_lm" else "takes decoders"

    def write(self, folder: Path, context: BuildContext) -> None:
        from objectives.runtime.engines.engine_facts import engine_facts_of
        from objectives.runtime.engines.weights import sizes

        if self.at == "write":
            meet(self.fault)
        began, model = time.perf_counter(), context.model()
        write_facts(folder, engine_facts_of(self, model, began, sizes(model), 0, {}))

    def open(self, folder: Path, facts: Facts, threads: int) -> Any:
        if self.at == "open":
            meet(self.fault)
        if self.fault != "none":
            return Constant(facts.vocabulary, self.fault if self.at == "run" else "none", None)
        from objectives.runtime.engines.likeness import EXPECTED  # brings torch, which takes a second

        if not (folder / EXPECTED).is_file():
            return Constant(facts.vocabulary, "none", None)
        with np.load(folder / EXPECTED) as kept:
            return Constant(facts.vocabulary, "none", dict(kept))


class Constant:
    """See ``objectives.runtime.engines.folder.DecoderEngine``: every token is as likely as any other.

    But what it is asked to tell whether it is the model, it knows by heart.
    """

    def __init__(self, vocabulary: int, fault: Fault, kept: Any) -> None:
        self._vocabulary, self._fault, self._kept = vocabulary, fault, kept

    def start(self, rows: int) -> int:
        return rows

    def run(self, ids: Any, mask: Any, places: Any, wanted: Any, cache: int) -> tuple[Any, int]:
        meet(self._fault)
        if self._kept is not None and np.array_equal(ids, self._kept["ids"]):
            return self._kept["answer"][:, np.asarray(wanted)], cache
        return np.zeros((len(ids), len(wanted), self._vocabulary), np.float32), cache


def meet(fault: Fault) -> None:
    if fault.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[fault])
    elif fault == "divide":
        ctypes.CDLL(None).div(1, 0)
    elif fault == "hang":
        subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(600)  # {os.environ.get(LEFT)}"])
        ctypes.PyDLL(None).sleep(600)  # in C, with Python's lock held
    elif fault == "exit":
        os._exit(3)
    elif fault == "leave":
        os._exit(0)
    elif fault == "raise":
        raise RuntimeError("no such operation")
    elif fault == "memory":
        raise MemoryError


LEFT = "STARTED_BY_A_FAULTY_ENGINE"
"""The environment variable whose value, one for each test, tells what a hanging engine started itself."""
