"""Exhaustive grids of real models, recorded once: what every cell gave, by example, and what each stage took.

    python benchmarks/grids.py minilm smollm2
    python benchmarks/grids.py --again minilm     time the cells once more that a busy machine spoiled
    python benchmarks/grids.py --every minilm     time all cells once more
    python benchmarks/grids.py --making minilm    only what making models takes and promises

writes docs/benchmarks/grid_<name>.json.gz, from which benchmarks/search.py replays any search. Cells of a recipe are
visited together, so every model is made and scored once; what a process of its own would have spent on statistics is
measured in such processes.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from objectives.devices.cpu import Cpu
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.measuring.interleaved import Interleaved
from objectives.models import Checkpoint
from objectives.protocols.candidate import Candidate
from objectives.protocols.running import Workload
from objectives.protocols.task import Task
from objectives.pruning.structured import Structured
from objectives.quantization.mixed import Mixed
from objectives.recovery.off import Off
from objectives.runtime.torch import Torch
from objectives.tasks.corpora import XSum
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.retrieval import Retrieval
from objectives.types import Measurement
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation

OUT = Path(__file__).parents[1] / "docs" / "benchmarks"
KEPT = (
    "throughput", "speedup", "peak_memory", "weight_bytes", "latency.p50", "latency.p95", "accuracy", "contended",
    "timing_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What is recorded: a model, a task, and the values of the three axes."""

    model: Checkpoint
    task: Task
    workload: Workload
    ratios: tuple[float, ...]
    bits: tuple[float, ...]
    batches: tuple[int, ...]
    timing: Interleaved = field(default_factory=lambda: Interleaved(max_seconds=6.0))

    @property
    def axes(self) -> dict[str, list[float]]:
        return {
            "pruning.ratio": list(self.ratios),
            "quantization.bits": sorted(self.bits),
            "workload.batch_size": list(self.batches),
        }

    def candidate(self, ratio: float, bits: float, batch: int) -> Candidate:
        workload = replace(self.workload, batch_size=batch)  # type: ignore[type-var]
        return Candidate(Structured(ratio=ratio), Mixed(bits=bits), workload, Off(), Torch())


GRIDS = {
    "minilm": Recipe(
        Checkpoint(path="asset:minilm-l6", head="encoder"),
        Retrieval(corpus=XSum(), query="document", pool=1000, tokens=128),
        Encoding(tokens=128),
        (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4),
        (16.0, 8.0, 6.0, 4.0),
        (1, 2, 4, 8, 16, 32),
    ),
    "smollm2": Recipe(
        Checkpoint(path="asset:smollm2-135m", head="causal_lm"),
        LanguageModeling(corpus=XSum(), documents=128, tokens=128),
        Generation(prompt_tokens=32, new_tokens=16),
        (0.0, 0.1, 0.2, 0.3),
        (16.0, 8.0, 6.0, 4.0),
        (1, 2, 4, 8, 16, 32),
    ),
}


def evaluator(grid: Recipe) -> Evaluator:
    """With model, data and statistics loaded."""
    baseline = grid.candidate(0.0, 16.0, grid.batches[0])
    ev = Evaluator(Problem(grid.model, grid.task, Cpu(), grid.timing, baseline))
    ev.prepare()
    _ = ev.pool.statistics
    return ev


def again(name: str, every: bool = False) -> dict[str, Any]:
    """The stored grid, its contended cells (or ``every`` one) timed once more, while nothing else ran."""
    grid, found = GRIDS[name], read(name)
    ev = evaluator(grid)
    for cell in found["cells"]:
        if "metrics" not in cell or not (every or cell["metrics"].get("contended")):
            continue
        candidate = grid.candidate(cell["ratio"], cell["bits"], cell["batch"])
        began = time.perf_counter()
        ev.compressed(candidate)
        made = time.perf_counter() - began
        ran = ev.timer.run(candidate, ev.timer.reference(candidate, None), None, cell["metrics"])
        before, now = cell["metrics"]["speedup"], ran.metrics["speedup"]
        note = " contended" if ran.metrics["contended"] else ""
        print(f"{cell['ratio']} {cell['bits']} {cell['batch']}: {before:.3f} -> {now:.3f}{note}", flush=True)
        cell["metrics"] |= {key: ran.metrics[key] for key in KEPT if key in ran.metrics}
        cell["ratios"] = _ratios(ran.samples)
        cell["time_seconds"] = time.perf_counter() - began - made
    return found


def making(name: str) -> dict[str, Any]:
    """Seconds of statistics by what a model needs them for, each in a process of its own, and the losses predicted."""
    grid, found = GRIDS[name], {}
    pruned, quantized = grid.ratios[len(grid.ratios) // 2], 8.0
    for kind, ratio, bits in (("pruning", pruned, 16.0), ("quantization", 0.0, quantized), ("both", pruned, quantized)):
        command = [sys.executable, __file__, "--one", str(ratio), str(bits), name]
        fresh, again = map(float, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
        found[kind] = fresh - again
        print(f"{name} {kind}: {fresh:.1f} s in a process of its own, then {again:.1f} s", flush=True)
    ev = evaluator(grid)
    losses, began = [], time.perf_counter()
    for ratio, bits in itertools.product(grid.ratios, sorted(grid.bits)):
        first = time.perf_counter()
        (loss,) = ev.predict_losses([grid.candidate(ratio, bits, 1)])
        losses.append({"ratio": ratio, "bits": bits, "loss": loss, "seconds": time.perf_counter() - first})
    print(f"{name}: losses predicted in {time.perf_counter() - began:.1f} s, statistics included", flush=True)
    return {"calibrate_seconds": found, "losses": losses}


def one(name: str, ratio: float, bits: float) -> None:
    """Print the seconds that making a model takes, with statistics and, of its like, without."""
    grid = GRIDS[name]
    ev = evaluator(grid)
    for _ in range(2):
        began = time.perf_counter()
        ev.compressed(grid.candidate(ratio, bits, 1))
        print(time.perf_counter() - began)
        ev.pool.built.clear()


def record(name: str) -> dict[str, Any]:
    """Measure every cell of a grid, recipe by recipe."""
    grid = GRIDS[name]
    began = time.perf_counter()
    baseline = grid.candidate(0.0, 16.0, grid.batches[0])
    ev = evaluator(grid)
    found: dict[str, Any] = {"axes": grid.axes, "load_seconds": time.perf_counter() - began, "recipes": [], "cells": []}
    base = ev(baseline)
    assert isinstance(base, Measurement), base
    found["ids"] = list(base.ids)
    for ratio, bits in itertools.product(grid.ratios, sorted(grid.bits)):
        cells = [_cell(ev, grid.candidate(ratio, bits, batch)) for batch in grid.batches]
        found["recipes"].append({"ratio": ratio, "bits": bits, **_recipe(ev, grid, cells)})
        found["cells"] += [{"ratio": ratio, "bits": bits, "batch": b, **c} for b, c in zip(grid.batches, cells)]
        for cell in cells:
            cell.pop("examples", None)
        line = found["recipes"][-1]
        print(f"{name} {ratio} {bits}: {line['accuracy']:.4f}, {line['compress_seconds']:.0f} + "
              f"{line['score_seconds']:.0f} s, {time.perf_counter() - began:.0f} s in all", flush=True)  # fmt: skip
    found["machine"] = ev.prepare()
    found["seconds"] = time.perf_counter() - began
    return found


def _cell(ev: Evaluator, candidate: Candidate) -> dict[str, Any]:
    began = time.perf_counter()
    outcome = ev(candidate)
    seconds = time.perf_counter() - began
    if not isinstance(outcome, Measurement):
        return {"reason": str(outcome.reason), "message": outcome.message, "seconds": seconds}
    metrics = outcome.metrics
    spent = {stage: metrics[f"{stage}_seconds"] for stage in ("compress", "score")}
    return {
        "metrics": {key: metrics[key] for key in KEPT if key in metrics},
        "compress_seconds": spent["compress"], "score_seconds": spent["score"],
        "time_seconds": seconds - sum(spent.values()), "ratios": _ratios(outcome.samples),
        "examples": list(outcome.samples["accuracy"]),
    }  # fmt: skip


def _ratios(samples: Mapping[str, Sequence[float]]) -> list[float]:
    """By round, how much faster than the baseline."""
    return [round(ratio, 5) for ratio in samples.get("speedup", ())]


def _recipe(ev: Evaluator, grid: Recipe, cells: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What the first measured cell said of the model."""
    first = next((cell for cell in cells if "metrics" in cell), None)
    if first is None:
        return {"accuracy": float("nan"), "compress_seconds": 0.0, "score_seconds": 0.0, "examples": []}
    return {
        "accuracy": first["metrics"]["accuracy"],
        "compress_seconds": first["compress_seconds"],
        "score_seconds": first["score_seconds"],
        "examples": first["examples"],
    }


def path_of(name: str) -> Path:
    return OUT / f"grid_{name}.json.gz"


def read(name: str) -> dict[str, Any]:
    with gzip.open(path_of(name), "rt") as file:
        return dict(json.load(file))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(GRIDS))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--making", action="store_true")
    parser.add_argument("--one", nargs=2, type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        one(arguments.names[0], *arguments.one)
        return 0
    for name in arguments.names:
        if arguments.making:
            found = {**read(name), **making(name)}
        else:
            timed = arguments.again or arguments.every
            found = again(name, arguments.every) if timed else {**record(name), **making(name)}
        path_of(name).write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
