"""The ledger: what was promised, what was delivered, and the reason that can be read off the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from objectives.calibration import Statistics
from objectives.devices.cpu import Cpu
from objectives.measuring.encoding import Encoding
from objectives.measuring.footprint import Footprint
from objectives.measuring.generation import Generation
from objectives.measuring.ledger import gains, least_seconds, promises, verdict
from objectives.measuring.roofline import Peaks, Work
from objectives.models import LoadedModel
from objectives.packing import int8
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.capability import CpuKernels
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
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


def reason(model: LoadedModel, rows: int = 4, **ran: float) -> str:
    return verdict(metrics(**ran), model, rows).get("no_realised_gain", "")


# ---- arithmetic


def test_gains_are_ratios_to_the_dense_model() -> None:
    found = gains(
        {"speedup": 3.0, "speedup.error": 0.02, "peak_memory": 50.0, "weight_bytes": 20.0},
        {**DENSE, "peak_memory": 100.0},
    )
    assert found == {
        "compression_speedup": 1.5,
        "compression_speedup.error": 0.03,
        "compression_memory_ratio": 0.5,
        "weight_ratio": 20.0 / (80 * MB),
    }


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
    ("speedup", "memory", "found"),
    [(3.0, 50.0, "speed, memory"), (3.0, 100.0, "speed"), (1.5, 50.0, "memory"), (1.5, 100.0, "none")],
)
def test_a_gain_is_in_speed_in_memory_in_both_or_in_none(make: Make, speedup: float, memory: float, found: str) -> None:
    facts = verdict(metrics(speedup, memory), make(), rows=4)
    assert facts["realised_gain"] == found
    assert ("no_realised_gain" in facts) == (found != "speed, memory")


def test_a_speedup_within_the_intervals_of_both_is_no_gain(make: Make) -> None:
    assert "within the noise of 3.0%" in reason(make(), speedup=2.0 * 1.025)  # 2 % and the dense model's 1 %
    assert verdict(metrics(speedup=2.0 * 1.04), make(), 4)["realised_gain"] == "speed, memory"


def test_a_saving_below_one_percent_is_no_gain_in_memory(make: Make) -> None:
    assert verdict(metrics(memory=99.5), make(), 4)["realised_gain"] == "speed"
    assert verdict(metrics(memory=98.5), make(), 4)["realised_gain"] == "speed, memory"


@pytest.mark.parametrize(("bits", "scheme"), [(4, "w8a8"), (8, "weight_only")])
def test_more_rows_than_low_bit_kernels_take_are_dequantised(make: Make, bits: int, scheme: str) -> None:
    assert "dequantised path, 100000 rows" in reason(make(bits, scheme), rows=100_000, speedup=1.5)
    assert "dequantised" not in reason(make(bits, scheme), rows=1, speedup=1.5)


def test_integer_products_dequantise_nothing_where_the_cpu_has_them(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has in (True, False):
        monkeypatch.setattr(int8, "cpu_kernels", lambda: CpuKernels(bf16=has, int8=has))  # noqa: B023
        assert ("dequantised path" in reason(make(8), rows=100_000, speedup=1.5)) is not has


def test_sixteen_bits_are_never_called_dequantised(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bf16Linear, "kernel_rows", 2)  # as on a CPU without bf16
    assert "dequantised" not in reason(make(16), rows=1000, speedup=1.5)


def test_layers_that_fit_no_kernel_are_named_as_the_reason(make: Make) -> None:
    model = make(4, multiple_of=16, ratio=0.35)  # 80 channels: no group of 32
    assert any(note.endswith("kept in 16 bits") for note in model.notes)
    assert "layers whose shape fits no kernel stay in 16 bits" in reason(model, speedup=1.5)


def test_widths_that_are_no_multiple_of_what_kernels_take_are_counted_and_named(make: Make) -> None:
    found = reason(make(16, multiple_of=16, ratio=0.35), speedup=1.5)
    assert "unaligned widths, 4 linears are no multiple of 32 (layers.0.mlp.gate_proj)" in found  # gate, up; two blocks
    assert "unaligned" not in reason(make(16, multiple_of=32, ratio=0.5), speedup=1.5)


def test_one_odd_width_among_many_explains_nothing(make: Make) -> None:
    model = make(16)
    odd = next(iter(model.blocks())).linear("mlp.gate_proj")
    odd.out_features -= 1  # type: ignore[operator]
    assert "unaligned" not in reason(model, speedup=1.5)


def test_a_run_far_below_the_limit_of_the_device_is_made_of_calls(make: Make) -> None:
    low = {"roofline.prefill": 0.05, "roofline.decode": 0.11}
    assert "launch-bound, calls take longer than their work (11% of the device's limit)" in reason(
        make(), speedup=1.5, **low
    )
    assert "launch-bound" not in reason(make(), speedup=1.5, **{"roofline.decode": 0.2})


def test_what_nothing_explains_is_left_to_the_kernels(make: Make) -> None:
    found = reason(make(), speedup=1.5)
    assert found.startswith("no faster than dense (0.75x): its kernels take as long as the dense ones at ")


def test_activations_that_outweigh_the_weights_are_named(make: Make) -> None:
    found = reason(make(), memory=100.0, weights=20.0)
    assert found == "no smaller than dense (1.00x): weights shrank to 0.25x, but activations are 80% of the peak"


def test_weights_that_did_not_shrink_are_named(make: Make) -> None:
    assert reason(make(), memory=100.0, weights=80.0) == "no smaller than dense (1.00x): its weights take as much"


def test_both_reasons_are_given_where_nothing_was_gained(make: Make) -> None:
    assert reason(make(), speedup=1.5, memory=100.0).count("; ") == 1
