"""Peak memory: what was planted is seen in full, once, in its phase, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from objectives.calibration.statistics import Statistics
from objectives.devices.allocations import Allocations, cache_bytes
from objectives.devices.cpu import Cpu
from objectives.packing.capability import cpu_kernels
from objectives.protocols.running import Workload
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.types import Memory
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation
from tests.objectives.conftest import Tiny
from tests.objectives.standins import MB, Plant, bytes_for_a_moment, nothing, stub

GENERATION = Generation(prompt_tokens=4, new_tokens=4)
SLACK = 4096
"""Bytes of ids and logits of the stand-in."""


def measured(prefill: Plant = nothing, decode: Plant = nothing) -> Memory:
    return Cpu().memory(stub(prefill, decode), GENERATION)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_temporary_inside_a_layer_is_seen_in_full_and_in_its_phase_alone(phase: str) -> None:
    peaks = measured(**{phase: bytes_for_a_moment(200 * MB)}).peaks
    other = {"prefill": "decode", "decode": "prefill"}[phase]
    assert 200 * MB <= peaks[phase] <= 200 * MB + SLACK  # type: ignore[index]
    assert peaks[other] <= SLACK  # type: ignore[index]


@pytest.mark.parametrize("pieces", [1, 8, 256])
@pytest.mark.parametrize("rounds", [1, 3])
def test_a_temporary_counts_once_however_often_and_in_however_many_pieces_it_comes(pieces: int, rounds: int) -> None:
    plant = bytes_for_a_moment(64 * MB, pieces, rounds)
    assert all(64 * MB <= peak <= 64 * MB + SLACK for peak in measured(plant, plant).peaks.values())


def test_temporaries_that_live_together_add_up_and_others_do_not() -> None:
    def plant() -> None:
        first, _second = torch.empty(30 * MB, dtype=torch.uint8), torch.empty(20 * MB, dtype=torch.uint8)
        del first
        torch.empty(25 * MB, dtype=torch.uint8)

    assert 50 * MB <= measured(plant).peaks["prefill"] <= 50 * MB + SLACK


def test_what_the_prefill_leaves_behind_is_there_while_decoding() -> None:
    kept: list[torch.Tensor] = []
    peaks = measured(prefill=lambda: kept.append(torch.empty(10 * MB, dtype=torch.uint8))).peaks
    assert len(kept) == 4  # two excerpts, each run twice
    assert 10 * MB <= peaks["decode"] <= 10 * MB + SLACK


def test_the_peak_repeats_to_the_byte(tiny: Tiny, statistics: Callable[[str], Statistics]) -> None:
    model = compressed(tiny, statistics, "llama", 4)
    measure = Cpu().memory(model, GENERATION).peaks  # what is made once and kept, is made here
    assert [Cpu().memory(model, GENERATION).peaks for _ in range(3)] == [measure] * 3


def test_what_was_there_before_is_not_counted() -> None:
    before = torch.ones(64 * MB // 4)
    assert max(measured(before.sum, before.sum).peaks.values()) <= SLACK


def test_giving_back_what_was_there_before_hides_nothing() -> None:
    held = [torch.empty(64 * MB, dtype=torch.uint8)]

    def plant() -> None:
        own = torch.empty(10 * MB, dtype=torch.uint8)
        held.clear()
        del own

    watch = Allocations()
    GENERATION.run(stub(plant), watch)
    assert 10 * MB <= watch.peaks["prefill"] <= 10 * MB + SLACK


@pytest.mark.parametrize("pieces", [1, 2048])
def test_memory_that_was_freed_before_does_not_hide_what_is_used(pieces: int) -> None:
    """Small blocks stay in the heap when freed, and are used again unseen by the kernel."""
    plant = bytes_for_a_moment(64 * MB, pieces)
    plant()
    assert 64 * MB <= measured(plant).peak <= 64 * MB + SLACK


def test_an_earlier_higher_peak_is_forgotten() -> None:
    bytes_for_a_moment(128 * MB)()
    measured(bytes_for_a_moment(128 * MB))
    assert measured(bytes_for_a_moment(8 * MB)).peak <= 8 * MB + SLACK


def test_a_run_that_fails_leaves_the_next_one_as_it_was() -> None:
    def fail() -> None:
        torch.empty(64 * MB, dtype=torch.uint8)
        raise MemoryError

    with pytest.raises(MemoryError):
        Encoding().run(stub(fail, head="encoder"), Allocations())
    assert 8 * MB <= measured(bytes_for_a_moment(8 * MB)).peak <= 8 * MB + SLACK


def compressed(tiny: Tiny, statistics: Callable[[str], Statistics], family: str, bits: Any) -> TorchRunner:
    model = tiny(family).copy()
    RoundToNearest(bits=bits, predicts=False).quantize_(model, statistics(family), Cpu())
    return TorchRunner(model)


def test_the_cache_is_as_large_as_keys_and_values_of_all_tokens(
    tiny: Tiny, statistics: Callable[[str], Statistics]
) -> None:
    model = compressed(tiny, statistics, "llama", 16)
    memory = Cpu().memory(model, Generation(batch_size=3, prompt_tokens=7, new_tokens=5))
    layers, tokens, groups, width = 3, 7 + 5 - 1, 2, 16
    assert memory.cache == 2 * layers * 3 * tokens * groups * width * cpu_kernels().compute_dtype.itemsize
    assert memory.peaks["decode"] > memory.cache
    assert memory.peak == max(memory.peaks.values())


def test_a_cache_counts_what_its_storages_hold_and_shared_ones_once() -> None:
    keys = torch.zeros(2, 10)
    layers = [SimpleNamespace(keys=keys[:, :4], values=keys[:, 4:]), SimpleNamespace(keys=None, values=torch.zeros(3))]
    assert cache_bytes(SimpleNamespace(layers=layers)) == 80 + 12
    assert cache_bytes(None) == cache_bytes("cache") == 0


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize(
    ("family", "workload"),
    [
        ("llama", Generation(batch_size=2, prompt_tokens=48, new_tokens=5)),
        ("llama", Generation(batch_size=2, prompt_tokens=2, new_tokens=24)),
        ("gemma2", Generation(batch_size=2, prompt_tokens=6, new_tokens=9)),
        ("bert", Encoding(batch_size=2, tokens=48)),
    ],
    ids=str,
)
def test_excerpts_need_what_the_whole_run_needs(
    tiny: Tiny, statistics: Callable[[str], Statistics], family: str, workload: Workload, bits: int
) -> None:
    model = compressed(tiny, statistics, family, bits)
    Cpu().memory(model, workload)  # what is made once and kept, is made here
    whole = Allocations()
    workload.run(model, whole)
    memory = Cpu().memory(model, workload)
    assert memory.peaks == whole.peaks
    assert memory.cache == whole.cache


# ---- the kernel's view


def test_a_run_within_what_is_resident_has_a_peak_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objectives.devices.cpu._status_bytes", lambda key: 7 * MB)
    assert measured(nothing, nothing).extra == {"resident_peak": 0.0}


def test_the_resident_peak_sees_what_torch_did_not_allocate() -> None:
    def plant() -> None:
        np.ones(64 * MB, dtype=np.uint8)

    measured(plant)  # what is read from disk at first, code and libraries, counts as memory too
    memory = measured(plant)
    assert memory.peak <= SLACK
    assert 62 * MB <= memory.extra["resident_peak"] <= 68 * MB


def test_the_allocator_of_the_process_is_given_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    allocator = SimpleNamespace(mallopt=lambda key, value: told.append((key, value)), malloc_trim=lambda _pad: None)
    monkeypatch.setattr("objectives.devices.heap.ctypes.CDLL", lambda _name: allocator)
    with pytest.raises(ZeroDivisionError):
        measured(lambda: 1 / 0)
    first, last = dict(told[:2]), dict(told[2:])
    assert first.keys() == last.keys() == {-1, -3}
    assert first[-3] == 64 * 1024
    assert last == {-3: 32 * 1024 * 1024, -1: -1}
