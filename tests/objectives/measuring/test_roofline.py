"""The limit's arithmetic, and the cache of peaks."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from objectives.devices.cpu import Cpu
from objectives.measuring import roofline
from objectives.measuring.roofline import Work, limit, peaks
from objectives.measuring.strain import Contention
from objectives.protocols.readings import Peaks


class Probed(Cpu):
    """A CPU that counts how often it is measured, and answers at once."""

    asked: ClassVar[list[str]] = []

    def peaks(self) -> Peaks:
        self.asked.append(self.name)
        return PEAKS


CPU = Probed()
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


@pytest.fixture
def probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the devices that were measured; the cache is empty."""
    CPU.asked.clear()
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(roofline, "read_strain", Contention)  # whatever else runs beside the tests
    monkeypatch.setattr(roofline, "BUSY", 0.05)  # other tests keep what they measured beside others
    return CPU.asked


def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "roofline-key.json"


def test_a_device_is_probed_once_per_key(probes: list[str]) -> None:
    assert peaks(CPU, "key") == peaks(CPU, "key") == PEAKS
    assert probes == ["cpu"]
    peaks(CPU, "other")
    assert probes == ["cpu", "cpu"]


@pytest.mark.parametrize("busy", [Contention(ran=1.0, waited=1.0), Contention(stolen=1.0, passed=10.0)])
def test_peaks_of_a_busy_machine_are_used_and_not_kept(
    probes: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    busy: Contention,
) -> None:
    reads = iter([Contention(), busy, Contention(), Contention()])
    monkeypatch.setattr(roofline, "read_strain", lambda: next(reads))
    assert peaks(CPU, "key") == PEAKS
    assert "busy machine" in caplog.text
    assert not cached(tmp_path).exists()
    assert peaks(CPU, "key") == PEAKS
    assert cached(tmp_path).exists()
    assert probes == ["cpu", "cpu"]


def test_devices_of_two_names_have_peaks_of_their_own(probes: list[str]) -> None:
    for name in ("first", "second", "first"):
        peaks(Probed(name=name), "key")
    assert probes == ["first", "second"]


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
