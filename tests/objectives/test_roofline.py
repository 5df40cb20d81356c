"""The limit's arithmetic, the cache of peaks, and a short probe of the machine that runs the tests."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from objectives.measuring import roofline
from objectives.measuring.roofline import Effort, Peaks, Work, limit, peaks, probe
from objectives.measuring.strain import Strain
from objectives.packing.capability import cpu_kernels
from objectives.types import Device

CPU = cast(Device, SimpleNamespace(name="cpu"))
PEAKS = Peaks(bandwidth=10e9, flops={"float32": 50e9, "bfloat16": 100e9, "int8": 400e9})


def test_few_operations_per_byte_are_bound_by_memory() -> None:
    assert limit(Work(bytes=5e9, operations={"bfloat16": 10e9}), PEAKS) == (0.5, "memory")


def test_many_operations_per_byte_are_bound_by_compute() -> None:
    assert limit(Work(bytes=1e9, operations={"bfloat16": 200e9}), PEAKS) == (2.0, "compute")


def test_operations_of_several_types_take_their_times_together() -> None:
    seconds, binds = limit(Work(bytes=0.0, operations={"int8": 400e9, "bfloat16": 50e9, "float32": 25e9}), PEAKS)
    assert seconds == pytest.approx(1.0 + 0.5 + 0.5)
    assert binds == "compute"


def test_a_type_without_a_kernel_is_multiplied_in_the_slowest_float() -> None:
    without = Peaks(10e9, {"int8": 10e9, "bfloat16": 100e9, "float32": 50e9})
    assert limit(Work(0.0, {"float8_e4m3fn": 100e9}), without) == (2.0, "compute")


def test_a_share_of_the_limit_above_one_is_not_clipped() -> None:
    seconds, _ = limit(Work(bytes=10e6, operations={}), PEAKS)
    measured = 0.5e-3  # from a cache twice as fast as memory
    assert seconds / measured == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("bandwidth", "flops"),
    [(0.0, {"float32": 1.0}), (math.nan, {"float32": 1.0}), (1.0, {"float32": math.inf}), (1.0, {"int8": 1.0})],
)
def test_rates_that_nothing_can_have_are_refused(bandwidth: float, flops: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive numbers"):
        Peaks(bandwidth, flops)


@pytest.fixture
def probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Device types that were probed, by a probe that measures nothing; the cache is empty."""
    asked: list[str] = []
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(roofline, "probe", lambda device_type: asked.append(device_type) or PEAKS)
    monkeypatch.setattr(roofline, "read_strain", Strain)  # whatever else runs beside the tests
    return asked


def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "roofline-key.json"


def test_a_device_is_probed_once_per_key(probes: list[str]) -> None:
    assert peaks(CPU, "key") == peaks(CPU, "key") == PEAKS
    assert probes == ["cpu"]
    peaks(CPU, "other")
    assert probes == ["cpu", "cpu"]


@pytest.mark.parametrize("busy", [Strain(ran=1.0, waited=1.0), Strain(stolen=1.0, passed=10.0)])
def test_peaks_of_a_busy_machine_are_used_and_not_kept(
    probes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, busy: Strain
) -> None:
    reads = iter([Strain(), busy, Strain(), Strain()])
    monkeypatch.setattr(roofline, "read_strain", lambda: next(reads))
    assert peaks(CPU, "key") == PEAKS
    assert "busy machine" in caplog.text
    assert not cached(tmp_path).exists()
    assert peaks(CPU, "key") == PEAKS
    assert cached(tmp_path).exists()
    assert probes == ["cpu", "cpu"]


def test_every_number_of_threads_has_its_own_peaks(probes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for threads in (1, 2, 1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        peaks(CPU, "key")
    assert len(probes) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "not a mapping", "a zero", "a text", "not utf-8", "other fields"])
def test_a_file_that_cannot_be_read_is_made_anew(probes: list[str], tmp_path: Path, damage: str) -> None:
    peaks(CPU, "key")
    file = cached(tmp_path)
    good = file.read_text()
    slot = next(iter(json.loads(good)))
    damaged: dict[str, Any] = {
        "cut": good[: len(good) // 2],
        "empty": "",
        "not a mapping": "[1, 2]",
        "a zero": good.replace(str(PEAKS.bandwidth), "0.0"),
        "a text": good.replace(str(PEAKS.bandwidth), '"fast"'),
        "not utf-8": good.replace("float32", "\udcff"),
        "other fields": json.dumps({slot: {"speed": 1.0}}),
    }
    assert damaged[damage] != good
    file.write_bytes(damaged[damage].encode(errors="surrogateescape"))
    assert peaks(CPU, "key") == PEAKS
    assert len(probes) == 2
    assert file.read_text() == good


def test_racing_probes_leave_one_whole_file(probes: list[str], tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(map(repr, pool.map(lambda _: peaks(CPU, "key"), range(32)))) == {repr(PEAKS)}
    assert [path.name for path in cached(tmp_path).parent.iterdir()] == ["roofline-key.json"]
    assert 1 <= len(probes) <= 8


def test_peaks_are_known_where_they_cannot_be_kept(
    probes: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert peaks(CPU, "key") == PEAKS
    assert "not kept" in caplog.text


SMALL = Effort(block=64 * 2**20, shapes=((128, 576, 1536),), seconds=0.2)


def test_a_probe_of_this_machine_finds_the_types_that_it_has_kernels_for() -> None:
    state = torch.random.get_rng_state()
    found = probe("cpu", SMALL)
    kernels = cpu_kernels()
    expected = {"float32"} | ({"bfloat16"} if kernels.bf16 else set()) | ({"int8"} if kernels.int8 else set())
    assert set(found.flops) == expected
    assert 1e8 < found.bandwidth < 1e13
    assert all(1e8 < rate < 1e15 for rate in found.flops.values())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("int8", [False, True])
def test_types_without_a_fast_kernel_are_not_probed(int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objectives.packing.capability.cpu_kernels", lambda: SimpleNamespace(bf16=False, int8=int8))
    found = roofline._operand_types("cpu")
    assert found == [torch.float32, *([torch.int8] if int8 else [])]


def scripted_rates(monkeypatch: pytest.MonkeyPatch, durations: dict[str, list[float]], seconds: float) -> float:
    """The bandwidth that is found where every kernel reads 10 bytes in scripted seconds."""
    clock = [0.0]
    left = {name: iter(values) for name, values in durations.items()}

    def run(name: str) -> None:
        clock[0] += next(left[name])

    monkeypatch.setattr(roofline, "perf_counter", lambda: clock[0])
    kernels = [roofline._Kernel("read", 10.0, lambda name=name: run(name)) for name in durations]
    return roofline._best_rates(kernels, lambda: None, seconds)["read"]


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
    product = cast(torch.Tensor, roofline._product(rows, weight.t())())
    torch.testing.assert_close(product.float(), rows.float() @ weight.float().t())


def test_a_block_holds_whole_rows_in_every_part() -> None:
    with pytest.raises(ValueError, match="block must be a multiple"):
        Effort(block=2**20 + 4, shapes=())


def test_a_default_block_does_not_fit_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    mib = 2**20
    for caches, block in ((0, 256), (32, 256), (96, 384), (4096, 1024)):
        monkeypatch.setattr(roofline, "_cache_bytes", lambda caches=caches: caches * mib)
        assert roofline._effort("cpu").block == block * mib
