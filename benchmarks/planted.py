"""Faults planted in a real model: a temporary of 200 MB in one layer, a sleep of 5 ms in every decode step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.models import Checkpoint, LoadedModel
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.workloads.generation import Generation

WORKLOAD = Generation(prompt_tokens=32, new_tokens=8)


def _model() -> LoadedModel:
    source = Checkpoint(path="asset:smollm2-135m", head="causal_lm").load()
    RoundToNearest().quantize_(source, Statistics(source, {}), Cpu())
    return source


@contextmanager
def _after(model: LoadedModel, act: Any) -> Iterator[None]:
    """Do something after the middle block's feed-forward network."""
    block = list(model.blocks())[len(list(model.blocks())) // 2]
    handle = block.module.mlp.register_forward_hook(act)
    try:
        yield
    finally:
        handle.remove()


def planted_memory() -> dict[str, float]:
    """Peak bytes that a run adds, with and without a temporary of 200 MB."""
    model, device = _model(), Cpu()
    runner = TorchRunner(model)
    found = {"peak without": float(device.memory(runner, WORKLOAD).peak)}
    with _after(model, lambda *_: torch.ones(50_000_000).sum() and None):
        found["peak with"] = float(device.memory(runner, WORKLOAD).peak)
    # The temporary does not coincide with the peak: what else is alive there counts too.
    return found


def planted_sleep() -> dict[str, float]:
    """What a sleep of 5 ms in each decode step adds to the first token and to further ones, seconds."""
    model, device = _model(), Cpu()
    found: dict[str, list[float]] = {}

    def sleep(_module: object, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        if inputs[0].shape[1] == 1:
            time.sleep(0.005)

    def run(name: str) -> None:
        watch = device.stopwatch()
        WORKLOAD.run(TorchRunner(model), watch)
        timing = watch.timing(WORKLOAD.items)
        found.setdefault(f"ttft {name}", []).extend(timing.ttft)
        found.setdefault(f"tpot {name}", []).extend(timing.tpot)

    run("warm")
    for _ in range(25):
        run("without")
        with _after(model, sleep):
            run("with")
    return {
        name: median(own - other for own, other in zip(found[f"{name} with"], found[f"{name} without"]))
        for name in ("ttft", "tpot")
    }
