"""The CUDA paths beside bf16 on the same GPU: every storage gives nearly the same outputs in fewer bytes.

What tells time and memory there is tried on stand-ins of torch's counters as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda
from objectives.devices.cuda_watches import AllocatorPeaks, EventStopwatch
from objectives.errors import Unsupported
from objectives.measuring.footprint import fake_copy, footprint, sketch
from objectives.packing import rows
from objectives.packing.codes import Codes
from objectives.packing.int8_rounding import round_symmetric
from objectives.packing.tinygemm import KERNEL_ROWS, TinygemmLinear
from objectives.packing.weighing import stored_bytes
from objectives.protocols.candidate import Candidate
from objectives.pruning.depth import Depth
from objectives.pruning.structured import Structured
from objectives.quantization.awq import Awq
from objectives.quantization.gptq import Gptq
from objectives.quantization.grid import round_to_grid
from objectives.quantization.mixed import Mixed
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.distillation import Distillation
from objectives.recovery.off import Off
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.torch import Torch
from objectives.workloads.generation import Generation
from tests.objectives.conftest import Tiny
from tests.objectives.standins import stub

gpu = pytest.mark.gpu

Pack = Callable[[nn.Linear], nn.Module]


def _codes(linear: nn.Linear, group: int) -> Codes:
    return round_to_grid(linear.weight.float(), torch.ones(linear.in_features), 4, group, (1.0,))


def _int4(linear: nn.Linear) -> nn.Module:
    return Cuda().pack(linear, 4, _codes(linear, 64), "w8a8")


PACKS: dict[str, tuple[Pack, float, float]] = {
    "int8": (lambda linear: Cuda().pack(linear, 8, None, "w8a8"), 0.03, 0.52),
    "int8 weights alone": (lambda linear: Cuda().pack(linear, 8, None, "weight_only"), 0.02, 0.52),
    "fp8": (lambda linear: Cuda().pack(linear, 8, None, "fp8"), 0.06, 0.52),
    "int4": (_int4, 0.2, 0.3),
}


RECIPES = [
    ("width", Structured(ratio=0.3, multiple_of=16), Off(), RoundToNearest(bits=16)),
    ("depth", Depth(ratio=0.3), Off(), RoundToNearest(bits=16)),
    ("distilled", Structured(ratio=0.3, multiple_of=16), Distillation(steps=3), RoundToNearest(bits=16)),
    ("8 bits", Structured(), Off(), Gptq(bits=8)),
    ("4 bits", Structured(ratio=0.2, multiple_of=32), Off(), Gptq(bits=4, group_size=32)),
    ("awq", Structured(), Off(), Awq(bits=4, group_size=32)),
    ("mixed", Structured(), Off(), Mixed(bits=6)),
]


def source() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1024, 2048, bias=False).bfloat16().requires_grad_(False)


@gpu
@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("count", [1, 32, 256])
def test_a_packed_linear_gives_nearly_the_outputs_of_bf16_in_fewer_bytes(name: str, count: int) -> None:
    Cuda().start()
    pack, most, share = PACKS[name]
    linear = source()
    x = torch.randn(count, 1024).bfloat16().cuda()
    wanted = x.float() @ linear.weight.float().t().cuda()
    dense = stored_bytes([linear])
    packed = pack(linear)
    assert ((packed(x).float() - wanted).norm() / wanted.norm()).item() < most
    assert stored_bytes([packed]) <= share * dense


@gpu
@pytest.mark.parametrize("width", [96, 192, 1024])  # inputs in tiles of 2, 4 and 8
@pytest.mark.parametrize("count", [1, KERNEL_ROWS, 1000])
def test_four_bits_multiply_by_exactly_our_codes(width: int, count: int) -> None:
    Cuda().start()
    torch.manual_seed(0)
    linear = nn.Linear(width, 1000, bias=True).bfloat16().requires_grad_(False)
    codes = replace(_codes(linear, 32), inputs=torch.rand(width).bfloat16() + 0.5)
    bias, packed = linear.bias.float(), Cuda().pack(linear, 4, codes, "w8a8")
    assert isinstance(packed, TinygemmLinear)
    weight = replace(codes, inputs=None).dequantize()
    assert torch.equal(packed.unpack_by_hand().float().cpu(), weight.bfloat16().float())
    assert torch.allclose(packed.unpack().float().cpu(), weight, rtol=2**-8, atol=1e-6)
    x = torch.randn(3, count, width).bfloat16()
    wanted = (x * codes.inputs).float() @ weight.t() + bias.cpu()
    assert ((packed(x.cuda()).float().cpu() - wanted).norm() / wanted.norm()).item() < 0.01


@gpu
@pytest.mark.parametrize("count", [1, 16, 100])
def test_eight_bits_multiply_integers(count: int) -> None:
    Cuda().start()
    linear = source()
    weight, scale = round_symmetric(linear.weight)
    x = torch.randn(count, 1024).bfloat16()
    codes, steps = round_symmetric(x)
    wanted = (codes.double() @ weight.double().t()) * steps * scale.t()
    found = Cuda().pack(linear, 8, None, "w8a8")(x.cuda()).cpu().double()
    assert ((found - wanted).norm() / wanted.norm()).item() < 0.003  # outputs are bf16


@gpu
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("width", [64, 1000, 5000])
def test_rows_are_rounded_by_one_launch_as_by_hand(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, width: int
) -> None:
    if not rows.HAS_TRITON:
        pytest.skip("no Triton, or no C compiler for it")
    x = torch.randn(5, width, device="cuda").bfloat16()
    x[2] = 0
    codes, scale = rows.round_rows(x, dtype, 32)
    monkeypatch.setattr(rows, "HAS_TRITON", False)
    by_hand, scale_by_hand = rows.round_rows(x, dtype, 32)
    assert torch.allclose(scale, scale_by_hand)
    off = (codes.float() - by_hand.float()).abs()
    assert (off > 0).float().mean() < 0.01  # ties
    assert off.max() <= (1 if dtype == torch.int8 else 32)
    assert codes.shape == (32, width)
    assert codes[5:].float().abs().max() == 0
    sums = torch.randint(-(10**6), 10**6, (32, width), device="cuda", dtype=torch.int32)
    columns, bias = torch.rand(width, device="cuda"), torch.randn(width, device="cuda").bfloat16()
    for added in (bias, None):
        monkeypatch.setattr(rows, "HAS_TRITON", True)
        found = rows.scale_sums(sums, scale, columns, added)
        monkeypatch.setattr(rows, "HAS_TRITON", False)
        assert torch.allclose(found.float(), rows.scale_sums(sums, scale, columns, added).float(), rtol=0.01, atol=1e-6)


@gpu
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda each: each[0])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_model_is_compressed_for_a_card_as_for_a_cpu(tiny: Tiny, family: str, recipe: Any) -> None:
    """Statistics and training are of the card; the same to rounding."""
    Cuda().start()
    _, pruner, recovery, quantizer = recipe
    ids = torch.randint(2, 128, (8, 32), generator=torch.Generator().manual_seed(2))
    found = []
    for device in (Cpu(), Cuda()):
        dense = tiny(family).copy()
        RoundToNearest(bits=16, predicts=False).quantize_(dense, Statistics(dense, {}), device)
        model, statistics = tiny(family).copy(), Statistics(tiny(family), {"random": [ids]}, dense)
        pruner.prune_(model, statistics)
        recovery.recover_(model, statistics)
        quantizer.quantize_(model, statistics, device)
        with torch.inference_mode():
            runner = TorchRunner(model)
            given = ids[:2].to(runner.device)
            found.append((runner.encode(given) if family == "bert" else runner.logits(given)).float().cpu())
    assert ((found[0] - found[1]).norm() / found[0].norm()).item() < 0.15


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


def test_free_memory_is_the_drivers_once_the_allocator_gave_back_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Gpu(monkeypatch)
    device.hold(300, keep=100)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _index: (5000 - device.reserved, 5000))
    assert Cuda().free_memory() == 5000 - 100


# ---- on a card


@gpu
@pytest.mark.parametrize("bits", [16, 8])
def test_what_is_predicted_on_a_card_is_near_what_the_allocator_hands_out(tiny: Tiny, bits: Any) -> None:
    """Kernels' workspaces are not seen, and the allocator rounds every block up to 512 bytes."""
    Cuda().start()
    dense, workload = tiny("llama"), Generation(batch_size=4, prompt_tokens=80, new_tokens=4)
    chosen, nothing = (
        Candidate(Structured(), RoundToNearest(bits=bits, predicts=False), workload, Off(), Torch()),
        Statistics(dense, {}),
    )
    predicted = footprint(sketch(fake_copy(dense), chosen, nothing, Cuda()), workload)
    model = dense.copy()
    chosen.quantization.quantize_(model, nothing, Cuda())
    memory = Cuda().memory(TorchRunner(model), workload)
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
