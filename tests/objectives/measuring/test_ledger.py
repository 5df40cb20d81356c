"""The ledger: what was promised, what was delivered, and the reason that can be read off the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.measuring.footprint import Footprint
from objectives.measuring.gains import gains
from objectives.measuring.ledger import judged, least_seconds, promises
from objectives.measuring.roofline import Work
from objectives.models import LoadedModel
from objectives.packing import int8
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.capability import CpuKernels
from objectives.protocols.readings import Peaks
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.types import GainFacts, NoteCode
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation
from tests.objectives.conftest import Tiny

MB = 2**20
Make = Callable[..., LoadedModel]
DENSE = {"speedup": 2.0, "speedup.error": 0.01, "peak_memory": 100 * MB, "weight_bytes": 80 * MB}


@pytest.fixture
def make(tiny: Tiny, statistics: Callable[[str], Statistics]) -> Make:
    """A tiny llama, pruned and stored."""

    def made(bits: Any = 16, scheme: Any = "w8a8", multiple_of: int = 32, ratio: float = 0.0) -> LoadedModel:
        model = tiny("llama").copy()
        pruner = Structured(ffn_ratio=ratio or None, multiple_of=multiple_of, criterion=Magnitude())
        pruner.prune_(model, statistics("llama"))
        RoundToNearest(bits=bits, scheme=scheme, predicts=False).quantize_(model, statistics("llama"), Cpu())
        return model

    return made


def metrics(speedup: float = 3.0, memory: float = 50.0, weights: float = 30.0, **more: float) -> dict[str, float]:
    ran = {
        "speedup": speedup,
        "speedup.error": 0.02,
        "peak_memory": memory * MB,
        "weight_bytes": weights * MB,
        "activation_peak": (memory - weights) * MB,
        "roofline.prefill": 0.5,
        **more,
    }
    return {**ran, **gains(ran, DENSE)}


def facts(model: LoadedModel, rows: int = 4, **ran: float) -> GainFacts:
    return judged(metrics(**ran), TorchRunner(model), rows)


def slow(model: LoadedModel, rows: int = 4, **ran: float) -> str:
    return facts(model, rows, speedup=1.5, **ran).speed_reason


# ---- arithmetic


def test_gains_are_ratios_to_the_dense_model() -> None:
    ran = {"speedup": 3.0, "speedup.low": 2.7, "speedup.high": 3.3, "peak_memory": 50.0, "weight_bytes": 20.0}
    found = gains(ran, {**DENSE, "contended": 1.0, "peak_memory": 100.0})
    assert found["compression_speedup"] == 1.5
    assert found["compression_speedup.low"] == pytest.approx(1.5 * (1 - (0.1**2 + 0.01**2) ** 0.5))
    assert found["compression_speedup.error"] == pytest.approx((0.1**2 + 0.01**2) ** 0.5)
    assert (found["batching_speedup"], found["batching_speedup.high"]) == (2.0, 2.02)
    assert (found["compression_memory_ratio"], found["weight_ratio"]) == (0.5, 20.0 / (80 * MB))
    assert found["dense_contended"] == 1.0


PEAKS = Peaks(bandwidth=100.0, flops={"float32": 1000.0, "int8": 4000.0})


def shapes(prefill: Work, decode: Work) -> Footprint:
    return Footprint(1, {"prefill": 1, "decode": 1}, 0, {"prefill": prefill, "decode": decode})


def test_a_promise_counts_every_step_by_what_binds_it() -> None:
    workload = Generation(batch_size=2, prompt_tokens=8, new_tokens=5)
    dense = shapes(Work(200.0, {"float32": 8000.0}), Work(300.0, {"float32": 1000.0}))
    small = shapes(Work(100.0, {"int8": 8000.0}), Work(60.0, {"int8": 400.0, "float32": 100.0}))
    assert least_seconds(dense, workload, PEAKS) == pytest.approx(8.0 + 4 * 3.0)
    assert least_seconds(small, workload, PEAKS) == pytest.approx(2.0 + 4 * 0.6)
    assert promises(small, dense, workload, PEAKS) == {
        "promised_speedup": pytest.approx(20.0 / 4.4),
        "flops": 8000.0 + 4 * 500.0,
        "flops_ratio": pytest.approx(10_000 / 12_000),
    }


def test_an_encoder_is_one_lap_whatever_its_batch() -> None:
    one = Footprint(1, {"encode": 1}, 0, {"encode": Work(100.0, {"float32": 5000.0})})
    assert least_seconds(one, Encoding(batch_size=8), PEAKS) == 5.0
    assert promises(one, one, Encoding(batch_size=8), PEAKS)["promised_speedup"] == 1.0


# ---- verdicts


@pytest.mark.parametrize(
    ("speedup", "speed"),
    [(3.0, "faster"), (2.08, "faster"), (2.04, "equal"), (2.0, "equal"), (1.96, "equal"), (1.9, "slower")],
)
@pytest.mark.parametrize(("memory", "size"), [(50.0, "smaller"), (98.5, "smaller"), (99.5, "equal"), (102.0, "larger")])
def test_a_verdict_has_three_ways(make: Make, speedup: float, speed: str, memory: float, size: str) -> None:
    """The interval decides: 2 % of the candidate's and 1 % of the dense model's, in squares."""
    found = facts(make(), speedup=speedup, memory=memory)
    assert (found.speed, found.memory) == (speed, size)
    assert bool(found.speed_reason) == (speed == "slower")  # of what is not told apart nothing needs explaining
    assert bool(found.memory_reason) == (size != "smaller")


@pytest.mark.parametrize(("bits", "scheme"), [(4, "w8a8"), (8, "weight_only")])
def test_more_rows_than_low_bit_kernels_take_are_dequantised(make: Make, bits: int, scheme: str) -> None:
    assert "dequantised path, 100000 rows" in slow(make(bits, scheme), rows=100_000)
    assert "dequantised" not in slow(make(bits, scheme), rows=1)


def test_integer_products_dequantise_nothing_where_the_cpu_has_them(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has in (True, False):
        monkeypatch.setattr(int8, "cpu_kernels", lambda: CpuKernels(bf16=has, int8=has))  # noqa: B023
        assert ("dequantised path" in slow(make(8), rows=100_000)) is not has


def test_sixteen_bits_are_never_called_dequantised(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bf16Linear, "kernel_rows", 2)  # as on a CPU without bf16
    assert "dequantised" not in slow(make(16), rows=1000)


def test_layers_that_fit_no_kernel_are_named_as_the_reason(make: Make) -> None:
    model = make(4, multiple_of=16, ratio=0.35)  # 80 channels: no group of 32
    assert any(note.code is NoteCode.KEPT_IN_16_BITS for note in model.notes)
    assert "layers whose shape fits no kernel stay in 16 bits" in slow(model)


def test_widths_that_are_no_multiple_of_what_kernels_take_are_counted_and_named(make: Make) -> None:
    found = slow(make(16, multiple_of=16, ratio=0.35))
    assert "unaligned widths, 4 linears are no multiple of 32 (layers.0.mlp.gate_proj)" in found  # gate, up; two blocks
    assert "unaligned" not in slow(make(16, multiple_of=32, ratio=0.5))


def test_one_odd_width_among_many_explains_nothing(make: Make) -> None:
    model = make(16)
    odd = next(iter(model.blocks())).linear("mlp.gate_proj")
    odd.out_features -= 1  # type: ignore[operator]
    assert "unaligned" not in slow(model)


def test_a_run_far_below_the_limit_of_the_device_is_made_of_calls(make: Make) -> None:
    low = {"roofline.prefill": 0.05, "roofline.decode": 0.11}
    assert "launch-bound, calls take longer than their work (11% of the device's limit)" in slow(make(), **low)
    assert "launch-bound" not in slow(make(), **{"roofline.decode": 0.2})


def test_what_nothing_explains_is_left_to_the_kernels(make: Make) -> None:
    assert slow(make()) == "its kernels take longer than the dense ones at 4 rows"


def test_activations_that_outweigh_the_weights_are_named(make: Make) -> None:
    found = facts(make(), memory=100.0, weights=20.0).memory_reason
    assert found == "weights shrank to 0.25x, but activations are 80% of the peak"


def test_weights_that_did_not_shrink_are_named(make: Make) -> None:
    assert facts(make(), memory=100.0, weights=80.0).memory_reason == "its weights take as much"
