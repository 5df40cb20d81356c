"""Kernels and passes on an NVIDIA GPU: linears by bits and rows, SmolLM2-135M by bits, batch and runtime.

    python benchmarks/gpu.py                  # about a minute; writes docs/benchmarks/gpu.json, prints tables

Linears are timed inside CUDA graphs, twenty in a row, so that launches do not count. What was found is told in
docs/benchmarks/gpu.md.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from objectives.calibration.statistics import Statistics
from objectives.devices.cuda import Cuda
from objectives.models import Checkpoint, LoadedModel
from objectives.packing.codes import Codes
from objectives.protocols.running import Device, Runner
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.cuda_graphs import CudaGraphs
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.workloads.generation import Generation

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "gpu.json"
SHAPES = ((1536, 576), (4096, 4096), (14336, 4096))
ROWS = (1, 16, 32, 48, 64, 128, 1024, 4096)
FORMS = ((16, "w8a8"), (8, "fp8"), (8, "w8a8"), (4, "w8a8"))
IN_A_ROW, REPLAYS = 20, 7


def microseconds(run: Callable[[], object]) -> float:
    """Median over replays of a graph that holds ``run`` twenty times."""
    aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(IN_A_ROW):
            run()
    found = []
    for _ in range(REPLAYS):
        watch: Any = Cuda().stopwatch()
        watch.start(laps=1)
        graph.replay()
        watch.end_phase("encode")
        found.append(watch.timing(IN_A_ROW).latency[0])
    return median(found[2:]) / IN_A_ROW * 1e6


def linears() -> Iterator[dict[str, float]]:
    """Random weights: their values do not matter to a kernel's time."""
    for out, width in SHAPES:
        source = nn.Linear(width, out, bias=False).bfloat16().requires_grad_(False)
        grid = torch.rand(out, width // 64) * 0.01
        codes = Codes(torch.randint(0, 16, (out, width), dtype=torch.int32), grid, grid, 4)
        packed: dict[str, Any] = {
            f"{bits} {scheme}": Cuda().pack(copy.deepcopy(source), bits, codes if bits == 4 else None, scheme)  # type: ignore[arg-type]
            for bits, scheme in FORMS
        }
        four = packed.pop("4 w8a8")
        runs = {**packed, "4 kernel": four.kernel, "4 unpacked": partial(_unpacked, four)}
        for rows in ROWS:
            x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
            taken = [name for name in runs if rows <= 128 or name != "4 kernel"]
            times = {name: microseconds(partial(runs[name], x)) for name in taken}
            yield {"out": out, "in": width, "rows": rows, **times}


def _unpacked(four: Any, x: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = x @ four.unpack().t()
    return product


@dataclass(frozen=True)
class Given:
    """What a runtime of torch asks for: see :class:`TorchBuildContext`."""

    loaded: LoadedModel
    device: Device

    def model(self) -> LoadedModel:
        return self.loaded


def passes() -> Iterator[dict[str, Any]]:
    """Milliseconds of a prefill of 128 tokens and of a decoding step."""
    source = Checkpoint(path="asset:smollm2-135m", head="causal_lm").load()
    for bits, scheme in FORMS:
        model = source.copy()
        quantizer = RoundToNearest(bits=bits, scheme=scheme, predicts=False)  # type: ignore[arg-type]
        quantizer.quantize_(model, Statistics(source, {}), Cuda())
        recorded = CudaGraphs().prepare(Given(model, Cuda()))  # type: ignore[arg-type]
        runners: dict[str, Runner] = {"torch": TorchRunner(model), "cuda_graphs": recorded}
        for name, runner in runners.items():
            for batch in (1, 32, 128):
                yield {"bits": bits, "scheme": scheme, "runtime": name, "batch": batch, **_times(runner, batch)}


def _times(runner: Runner, batch: int) -> dict[str, float]:
    workload, timings = Generation(batch_size=batch, prompt_tokens=128, new_tokens=16), []
    for _ in range(7):
        watch = Cuda().stopwatch()
        workload.run(runner, watch)
        timings.append(watch.timing(workload.items))
    return {
        "prefill_ms": 1e3 * median(timing.ttft[0] for timing in timings[2:]),
        "decode_ms": 1e3 * median(step for timing in timings[2:] for step in timing.tpot),
    }


def main() -> None:
    Cuda().start()
    found: dict[str, Any] = {"device": dict(Cuda().describe()), "torch": torch.__version__}
    peaks = Cuda().peaks()
    found["peaks"] = {"bandwidth": peaks.bandwidth, **peaks.flops}
    for name, rows in (("linears", linears()), ("passes", passes())):
        found[name] = []
        for row in rows:
            print({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()})
            found[name].append(row)
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
