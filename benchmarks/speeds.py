"""How much faster compressed models run than their 16-bit original: the speed lines of benchmarks/compression.py.

One thread. Everything that is compared takes its turn in every round, so that a busy machine disturbs all alike; a
speed-up is the median over the rounds of time(16 bits) / time(model). The original runs on the fastest 16-bit path of
this CPU, not on torch's bf16 GEMM, which without bf16 instructions is several times slower.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

import torch

from objectives.models import LoadedModel
from objectives.packing.capability import cpu_kernels
from objectives.packing.linear import PackedLinear

ROUNDS = 15
DENSE = "dense"


def speed_ups(
    calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Of every call over the one named ``dense``; in an order of its own each round: some calls empty the caches."""
    order, names = random.Random(0), list(calls)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for index in range(rounds + 1):
            order.shuffle(names)
            for name in names:
                began = clock()
                calls[name]()
                if index:  # the first round warms up
                    samples[name].append(clock() - began)
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


def path_ratios(
    linear: PackedLinear, half: PackedLinear, rows: int, rounds: int = 31, names: Sequence[str] = ()
) -> dict[str, float]:
    """Of every path of ``linear`` over ``half``, the same weight in 16 bits: CPU time of a thread, in turns.

    ``names``: of the paths; all of them where none is given.
    """
    names = names or linear.paths
    x = torch.randn(rows, linear.in_features, dtype=cpu_kernels().compute_dtype)
    calls: dict[str, Callable[[], object]] = {DENSE: partial(half, x)}
    for name in names:
        fixed = copy.copy(linear)
        fixed.path = lambda _rows, name=name: name  # type: ignore[method-assign, misc]
        calls[name] = partial(fixed, x)
    ratios = speed_ups(calls, rounds, time.thread_time)
    return {name: ratios[name] for name in names}


def wrong_turns(dense: LoadedModel, model: LoadedModel, counts: tuple[int, ...]) -> list[str]:
    """Shapes and row counts where a packed linear is slower than 0.97 of 16 bits and another path would be faster.

    Faster by more than a tenth: that is the noise here.
    """
    found, shapes = [], {}
    for block in model.blocks():
        for path in block.stack.block_linears:
            linear: PackedLinear = block.linear(path)  # type: ignore[assignment]
            if isinstance(linear, PackedLinear) and len(linear.paths) > 1:
                shapes[linear.in_features, linear.out_features] = linear, dense.block(block.name).linear(path)
    for linear, half in shapes.values():
        found += [turn for rows in counts if (turn := wrong_turn(linear, half, rows))]  # type: ignore[arg-type]
    return found


def wrong_turn(linear: PackedLinear, half: PackedLinear, rows: int) -> str:
    """What is wrong with the path that ``rows`` rows take; empty where nothing is."""
    ratios = path_ratios(linear, half, rows)
    taken, best = linear.path(rows), max(ratios, key=ratios.__getitem__)
    if ratios[taken] >= 0.97 or ratios[best] <= 1.1 * ratios[taken]:
        return ""
    shape = f"{linear.in_features}->{linear.out_features} x{rows}"
    return f"{type(linear).__name__} {shape}: {taken} {ratios[taken]:.2f}, {best} {ratios[best]:.2f}"
