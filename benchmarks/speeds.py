"""How much faster compressed models run than their 16-bit original: the speed lines of benchmarks/compression.py.

One thread. Everything that is compared takes its turn in every round, so that a busy machine disturbs all alike; a
speed-up is the median over the rounds of time(16 bits) / time(model). The original runs on the fastest 16-bit path of
this CPU, not on torch's bf16 GEMM, which without bf16 instructions is several times slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import torch

from objectives.models import LoadedModel
from objectives.packing.capability import cpu_kernels
from objectives.packing.int4 import Int4Linear
from objectives.packing.linear import PackedLinear

ROUNDS = 15
DENSE = "dense"


def speed_ups(calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Of every call over the one named ``dense``."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for index in range(rounds + 1):
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                if index:  # the first round warms up
                    samples[name].append(time.perf_counter() - began)
    return {
        name: median(dense / own for dense, own in zip(samples[DENSE], times, strict=True))
        for name, times in samples.items()
    }


def prefill(models: Mapping[str, LoadedModel], rows: int, tokens: int) -> dict[str, float]:
    """Reading a prompt, as generation does: logits of the last token only."""
    ids = torch.randint(0, 10000, (rows, tokens), generator=torch.Generator().manual_seed(0))

    def call(model: LoadedModel) -> Callable[[], object]:
        return lambda: model.module(ids, logits_to_keep=1, use_cache=False)

    return speed_ups({name: call(model) for name, model in models.items()})


def decode(models: Mapping[str, LoadedModel], tokens: int = 12) -> dict[str, float]:
    """Writing ``tokens`` tokens after a short prompt, one request."""
    ids = torch.randint(0, 10000, (1, 8), generator=torch.Generator().manual_seed(0))

    def call(model: LoadedModel) -> Callable[[], object]:
        return lambda: model.module.generate(
            ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0
        )

    return speed_ups({name: call(model) for name, model in models.items()}, rounds=5)


def layers(models: Mapping[str, LoadedModel], rows: int) -> dict[str, float]:
    """All block linears, one after the other, without what is between them."""

    def call(model: LoadedModel) -> Callable[[], object]:
        linears = [block.linear(path) for block in model.blocks() for path in block.stack.block_linears]
        dtype = cpu_kernels().compute_dtype
        inputs = {size: torch.randn(rows, size, dtype=dtype) for size in {linear.in_features for linear in linears}}
        return lambda: [linear(inputs[linear.in_features]) for linear in linears]

    return speed_ups({name: call(model) for name, model in models.items()})


def wrong_turns(model: LoadedModel, counts: tuple[int, ...]) -> list[str]:
    """Shapes and row counts where int4's other path would have been faster by more than a tenth: the noise here."""
    found = []
    shapes = {}
    for block in model.blocks():
        for path in block.stack.block_linears:
            linear: PackedLinear = block.linear(path)  # type: ignore[assignment]
            if isinstance(linear, Int4Linear):
                shapes[linear.in_features, linear.out_features] = linear
    for (inputs, outputs), linear in shapes.items():
        for rows in counts:
            x = torch.randn(rows, inputs, dtype=cpu_kernels().compute_dtype)
            paths = {"kernel": partial(linear.kernel, x), "unpacked": partial(linear._multiply_unpacked, x)}
            taken = "kernel" if rows <= linear.kernel_rows else "unpacked"
            other = "unpacked" if taken == "kernel" else "kernel"
            ratio = speed_ups({DENSE: paths[taken], other: paths[other]}, rounds=31)[other]
            if ratio > 1.1:
                found.append(f"{inputs}->{outputs} x{rows}: {other} {ratio:.2f}x")
    return found
