"""The CUDA paths beside bf16 on the same GPU: every storage gives nearly the same outputs in fewer bytes.

What tells time and memory there is tried on stand-ins of torch's counters as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from objectives.calibration import Statistics
from objectives.devices.cuda import AllocatorPeaks, Cuda, EventStopwatch
from objectives.errors import Unsupported
from objectives.measuring.footprint import footprint, skeleton_of, sketch
from objectives.measuring.generation import Generation
from objectives.measuring.weighing import stored_bytes
from objectives.pruning.structured import Structured
from objectives.quantization.grid import round_to_grid
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.types import Candidate
from tests.objectives.conftest import Tiny
from tests.objectives.standins import stub

gpu = pytest.mark.gpu

Pack = Callable[[nn.Linear], nn.Module]


def _int4(linear: nn.Linear) -> nn.Module:
    codes = round_to_grid(linear.weight.float(), torch.ones(linear.in_features), 4, 64, (1.0,))
    return Cuda().pack(linear, 4, codes, "w8a8")


PACKS: dict[str, tuple[Pack, float, float]] = {
    "int8": (lambda linear: Cuda().pack(linear, 8, None, "w8a8"), 0.03, 0.52),
    "int8 weights alone": (lambda linear: Cuda().pack(linear, 8, None, "weight_only"), 0.02, 0.52),
    "fp8": (lambda linear: Cuda().pack(linear, 8, None, "fp8"), 0.06, 0.52),
    "int4": (_int4, 0.2, 0.3),
}


def source() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1024, 2048, bias=False).bfloat16().requires_grad_(False)


@gpu
@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("rows", [1, 32, 256])
def test_a_packed_linear_gives_nearly_the_outputs_of_bf16_in_fewer_bytes(name: str, rows: int) -> None:
    Cuda().start()
    pack, most, share = PACKS[name]
    linear = source()
    x = torch.randn(rows, 1024).bfloat16().cuda()
    wanted = x.float() @ linear.weight.float().t().cuda()
    dense = stored_bytes([linear])
    packed = pack(linear)
    assert ((packed(x).float() - wanted).norm() / wanted.norm()).item() < most
    assert stored_bytes([packed]) <= share * dense


@gpu
def test_two_of_four_weights_give_the_outputs_of_the_masked_weight() -> None:
    Cuda().start()
    if not Cuda().sparse:
        pytest.skip("compute capability below 8.0")
    linear = source()
    linear.weight *= torch.tensor([1, 0, 0, 1]).tile(2048, 256)
    x = torch.randn(256, 1024).bfloat16().cuda()
    wanted = x.float() @ linear.weight.float().t().cuda()
    dense = stored_bytes([linear])
    packed = Cuda().pack_sparse(linear)
    assert ((packed(x).float() - wanted).norm() / wanted.norm()).item() < 0.01
    assert stored_bytes([packed]) <= 0.6 * dense
    with pytest.raises(Unsupported, match="in 32s"):
        Cuda().pack_sparse(nn.Linear(48, 48))


# ---- stand-ins of torch's counters


class Gpu:
    """A queue that takes a second a launch, and an allocator, in torch's words."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queued, self.waits = 0.0, 0
        self.live = self.peak = self.reserved = 0
        for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "memory_allocated"):
            monkeypatch.setattr(f"torch.cuda.{name}", getattr(self, name))
        monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: self.peak)
        monkeypatch.setattr("torch.cuda.max_memory_reserved", lambda: self.reserved)
        monkeypatch.setattr("torch.cuda.Event", self.event)
        monkeypatch.setattr("objectives.devices.nvidia.process_memory", lambda _index: 7000)

    def synchronize(self) -> None:
        self.waits += 1

    def empty_cache(self) -> None:
        self.reserved = self.live

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.live

    def memory_allocated(self, _index: int = 0) -> int:
        return self.live

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        return Event(self)

    def launch(self, seconds: float) -> None:
        self.queued += seconds

    def hold(self, size: int, keep: int = 0) -> None:
        """Allocate ``size`` for a moment, ``keep`` of it for good."""
        self.peak = max(self.peak, self.live + size)
        self.reserved = max(self.reserved, self.peak + 100)
        self.live += keep


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def record(self) -> None:
        self.at = self.gpu.queued

    def synchronize(self) -> None:
        self.gpu.waits += 1

    def elapsed_time(self, later: Event) -> float:
        return 1000 * (later.at - self.at)  # ms, as torch says it


def test_events_stamp_what_was_queued_and_the_cpu_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Gpu(monkeypatch)
    model = stub(prefill=lambda: device.launch(0.5), decode=lambda: device.launch(0.25))
    watch, workload = EventStopwatch(), Generation(batch_size=2, prompt_tokens=4, new_tokens=3)
    workload.run(model, watch)
    before = device.waits
    timing = watch.timing(workload.items)
    assert (timing.latency, timing.ttft, timing.tpot) == ((1.0,), (0.5,), (0.25, 0.25))
    assert timing.items == 6
    assert device.waits == before + 1
    assert before <= 1  # at the start only: waiting for every step would be timed


def test_the_peaks_of_the_allocator_are_told_apart_by_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Gpu(monkeypatch)
    device.live = 5000
    model = stub(prefill=lambda: device.hold(300, keep=100), decode=lambda: device.hold(50, keep=10))
    watch = AllocatorPeaks()
    Generation(prompt_tokens=4, new_tokens=3).run(model, watch)
    assert watch.peaks == {"prefill": 300, "decode": 100 + 10 + 50}
    assert watch.reserved == 5000 + 300 + 100


def test_memory_is_measured_after_libraries_took_what_they_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    device, workspaces = Gpu(monkeypatch), [900]

    def plant() -> None:
        device.hold(300)
        if workspaces:
            device.hold(workspaces[0], keep=workspaces.pop())

    memory = Cuda().memory(stub(prefill=plant), Generation(prompt_tokens=4, new_tokens=2))
    assert memory.peaks["prefill"] == 300
    assert memory.extra["process_memory"] == 7000
    assert memory.extra["reserved_peak"] >= 300


def test_free_memory_is_the_drivers_and_what_the_allocator_holds_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _index: (1000, 5000))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda _index: 300)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda _index: 200)
    assert Cuda().free_memory() == 1100


# ---- on a card


@gpu
@pytest.mark.parametrize("bits", [16, 8])
def test_what_is_predicted_on_a_card_is_near_what_the_allocator_hands_out(tiny: Tiny, bits: Any) -> None:
    """Kernels' workspaces are not seen, and the allocator rounds every block up to 512 bytes."""
    Cuda().start()
    dense, workload = tiny("llama"), Generation(batch_size=4, prompt_tokens=80, new_tokens=4)
    chosen, nothing = (
        Candidate(Structured(), RoundToNearest(bits=bits, predicts=False), workload),
        Statistics(dense, {}),
    )
    predicted = footprint(sketch(skeleton_of(dense), chosen, nothing, Cuda()), workload)
    model = dense.copy()
    chosen.quantization.quantize_(model, nothing, Cuda())
    memory = Cuda().memory(model, workload)
    assert predicted.weights == pytest.approx(stored_bytes([model.module]), rel=0.01)
    assert predicted.cache == memory.cache
    for phase, peak in memory.peaks.items():
        assert predicted.peaks[phase] == pytest.approx(peak, rel=0.1, abs=512 * 1024)


@gpu
def test_a_planted_temporary_is_seen_in_its_phase_alone() -> None:
    Cuda().start()
    model = stub(prefill=lambda: torch.empty(200 << 20, dtype=torch.uint8, device="cuda"))
    peaks = Cuda().memory(model, Generation(prompt_tokens=4, new_tokens=3)).peaks
    assert 200 << 20 <= peaks["prefill"] <= (200 << 20) + 65536
    assert peaks["decode"] <= 65536


@gpu
def test_a_stopwatch_on_a_card_times_what_was_queued() -> None:
    Cuda().start()
    left = torch.randn(4096, 4096, device="cuda")

    def timed(repeats: int) -> float:
        def work() -> None:
            for _ in range(repeats):
                left @ left

        watch, workload = Cuda().stopwatch(), Generation(prompt_tokens=4, new_tokens=1)
        workload.run(stub(prefill=work), watch)
        return watch.timing(workload.items).latency[0]

    timed(10)
    assert 3 < timed(80) / timed(10) < 20
