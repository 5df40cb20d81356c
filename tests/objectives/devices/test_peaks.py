"""A short probe of the machine that runs the tests, and how a peak is taken."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from objectives.devices import cpu
from objectives.devices import peaks as module
from objectives.devices.peaks import Effort, probe
from objectives.packing.capability import cpu_kernels
from objectives.protocols.readings import Peaks


@pytest.mark.parametrize(
    ("bandwidth", "flops"),
    [(0.0, {"float32": 1.0}), (math.nan, {"float32": 1.0}), (1.0, {"float32": math.inf}), (1.0, {"int8": 1.0})],
)
def test_rates_that_nothing_can_have_are_refused(bandwidth: float, flops: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive numbers"):
        Peaks(bandwidth, flops)


def small() -> Effort:
    """What a CPU tries, with less of it."""
    return replace(cpu._effort(), block=64 * 2**20, shapes=((128, 576, 1536),), seconds=0.2)


def test_a_probe_of_this_machine_finds_the_types_that_it_has_kernels_for() -> None:
    state = torch.random.get_rng_state()
    found = probe("cpu", small())
    kernels = cpu_kernels()
    expected = {"float32"} | ({"bfloat16"} if kernels.bf16 else set()) | ({"int8"} if kernels.int8 else set())
    assert set(found.flops) == expected
    assert 1e8 < found.bandwidth < 1e13
    assert all(1e8 < rate < 1e15 for rate in found.flops.values())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("int8", [False, True])
def test_types_without_a_fast_kernel_are_not_probed(int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objectives.packing.capability.cpu_kernels", lambda: SimpleNamespace(bf16=False, int8=int8))
    assert cpu._effort().types == [torch.float32, *([torch.int8] if int8 else [])]


def scripted_rates(monkeypatch: pytest.MonkeyPatch, durations: dict[str, list[float]], seconds: float) -> float:
    """The bandwidth that is found where every kernel reads 10 bytes in scripted seconds."""
    clock = [0.0]
    left = {name: iter(values) for name, values in durations.items()}

    def run(name: str) -> None:
        clock[0] += next(left[name])

    monkeypatch.setattr(module, "perf_counter", lambda: clock[0])
    kernels = [module._Kernel("read", 10.0, lambda name=name: run(name)) for name in durations]
    return module._best_rates(kernels, lambda: None, seconds)["read"]


def test_a_peak_is_the_best_of_all_kernels_and_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = {"slow": [9.0] * 3, "fast": [9.0, 2.0, 8.0]}
    assert scripted_rates(monkeypatch, durations, seconds=40.0) == 5.0


def test_a_kernel_is_run_once_more_after_its_warm_up_however_late_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scripted_rates(monkeypatch, {"cold": [9.0, 2.0]}, seconds=1.0) == 5.0


def test_a_short_kernel_is_repeated_within_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = {"short": [0.02, 0.001, 0.02, 0.02, 0.02]}
    assert scripted_rates(monkeypatch, durations, seconds=0.0) == pytest.approx(10.0 / 0.001)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn])
def test_products_are_those_of_a_linear_layer(dtype: torch.dtype) -> None:
    rows, weight = (torch.randint(-2, 3, size).to(dtype) for size in ((32, 64), (48, 64)))
    product = cast(torch.Tensor, module._product(rows, weight.t())())
    torch.testing.assert_close(product.float(), rows.float() @ weight.float().t())


def test_a_block_holds_whole_rows_in_every_part() -> None:
    with pytest.raises(ValueError, match="block must be a multiple"):
        Effort(block=2**20 + 4, shapes=(), types=())


def test_a_default_block_does_not_fit_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    mib = 2**20
    for caches, block in ((0, 256), (32, 256), (96, 384), (4096, 1024)):
        monkeypatch.setattr(cpu, "_cache_bytes", lambda caches=caches: caches * mib)
        assert cpu._effort().block == block * mib
