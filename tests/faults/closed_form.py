"""A problem in closed form behind real executors: trials take as long as a test says, and meet the fault that it wants.

A folder holds what the test says (``plan.json``) and what happened (``calls``, a line for each).
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives.evaluation.problem import CheckReport, Problem
from objectives.protocols.candidate import Candidate
from objectives.tasks.provenance import Source
from objectives.types import Gate, Measurement, Outcome

Cell = tuple[float, float, int]


def cell_of(candidate: Candidate) -> Cell:
    """Return ratio, bits and batch size."""
    return candidate.pruning.ratio, candidate.quantization.bits, candidate.workload.batch_size


def measured(cell: Cell) -> dict[str, float]:
    """Smooth surfaces: pruning and fewer bits are faster, smaller and worse; a larger batch is faster and larger."""
    ratio, bits, batch = cell
    throughput = 100.0 * batch**0.6 * (1 + ratio) * (16 / bits) ** 0.3
    memory = 1e8 * (1 - 0.8 * ratio) * bits / 16 + 1e6 * batch
    return {
        "throughput": throughput, "latency.p50": batch / throughput, "latency.p95": 1.1 * batch / throughput,
        "peak_memory": memory, "weight_bytes": 0.9 * memory, "accuracy_stderr": 0.004,
        "accuracy": 0.4 * (1 - 0.3 * ratio - {16: 0.0, 8: 0.01, 4: 0.06}[int(bits)]),
        "speedup": throughput / 100.0, "speedup.error": 0.01, "pruning_ratio": ratio,
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ClosedForm(Problem):
    """The problem; ``folder``: where its plan and its calls are."""

    folder: str

    def evaluator(self) -> Evaluator:
        """Return what measures in this process."""
        return Evaluator(Path(self.folder))


class Evaluator:
    """Measures in closed form, and does what the plan says.

    The plan: ``seconds`` that a trial takes; ``faults`` by cell, as ``0.5/8/1``, each a list for its first tries.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> Mapping[str, str]:
        return {"device": "closed form"}

    def sources(self) -> list[Source]:
        return []

    def check(self) -> CheckReport:
        raise NotImplementedError

    def __call__(self, candidate: Candidate, gate: Gate | None = None) -> Outcome:
        cell = cell_of(candidate)
        name = f"{cell[0]:g}/{cell[1]:g}/{cell[2]}"
        plan = json.loads((self._folder / "plan.json").read_text())
        faults = plan.get("faults", {}).get(name, [])
        tries = [line for line in calls(self._folder) if line[0] == name] if faults else []
        note(self._folder, name)
        time.sleep(plan.get("seconds", 0.0))
        metrics = measured(cell)
        if len(tries) < len(faults):
            meet(faults[len(tries)], metrics)
        note(self._folder, f"{name} done")
        return Measurement(metrics, {"latency": (metrics["latency.p50"],)})

    def predict_losses(self, candidates: Sequence[Candidate]) -> list[float]:
        return [math.nan] * len(candidates)

    def confirm(self, candidates: Sequence[Candidate]) -> list[Measurement]:
        return [Measurement(measured(cell_of(each))) for each in candidates]


def note(folder: Path, text: str) -> None:
    """Append a line with the time and this process's number; lines of several processes do not mix."""
    with (folder / "calls").open("a") as file:
        file.write(f"{text} {time.monotonic()} {os.getpid()}\n")


def calls(folder: Path) -> list[list[str]]:
    """Return the lines so far, split into words."""
    file = folder / "calls"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def meet(fault: str, metrics: dict[str, Any]) -> None:
    """Do what a faulty trial does."""
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "segfault":
        ctypes.string_at(0)
    elif fault == "sys_exit":
        sys.exit(3)
    elif fault == "os_exit":
        os._exit(3)
    elif fault == "hang":
        time.sleep(600)
    elif fault == "raise":
        raise ValueError("a bug")
    elif fault == "cpu_memory":
        bytearray(1 << 40)
    elif fault in ("nan", "inf", "none", "text"):
        metrics["speedup"] = {"nan": math.nan, "inf": math.inf, "none": None, "text": "fast"}[fault]
    elif fault in ("accuracy_nan", "accuracy_two"):
        metrics["accuracy"] = {"accuracy_nan": math.nan, "accuracy_two": 2.0}[fault]
    elif fault in ("no_accuracy", "no_memory"):
        del metrics[{"no_accuracy": "accuracy", "no_memory": "peak_memory"}[fault]]
    else:
        raise NotImplementedError(fault)
