"""The fastest path of a packed linear is measured once, kept, and the same in every process of a machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from objectives.packing import path_times, paths
from objectives.packing.capability import cpu_kernels
from objectives.packing.int4 import Int4Linear, block_rows
from objectives.packing.int8 import Int8Linear, Int8WeightLinear
from objectives.packing.int8_rounding import round_rows, round_symmetric
from objectives.packing.linear import COPIED, PackedLinear, can_copy, places, settle_paths
from objectives.packing.paths import ROWS, TURNS
from objectives.packing.weighing import stored_bytes

FACTS = {"device_name": "one"}
CLASSES = (Int4Linear, Int8WeightLinear, Int8Linear)


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    paths.forget()
    yield
    paths.forget()


def weight(out: int, width: int) -> Tensor:
    return torch.randn(out, width, generator=torch.Generator().manual_seed(0))


def ranking(*names: str) -> dict[int, dict[str, float]]:
    return {rows: {name: float(place) for place, name in enumerate(names)} for rows in ROWS}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("out", "width"), [(64, 64), (112, 128), (2048, 576)])
def test_all_paths_of_a_class_give_the_same_product(kind: type[PackedLinear], out: int, width: int) -> None:
    linear = kind.sample(weight(out, width))
    for rows in (1, 33):
        x = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))
        given = round_symmetric(x)[0] if kind is Int8Linear else x.to(cpu_kernels().compute_dtype)
        found = {name: getattr(linear, name)(given).double() for name in linear.paths}
        wanted = given.double() @ linear.unpack(0, out, torch.float32).double().t()
        for name, y in found.items():
            assert (y - wanted).norm() / wanted.norm() < 0.005, name  # bf16 rounds to 2^-9


@pytest.mark.skipif(not can_copy(), reason="this CPU does not multiply 16 bits by itself")
@pytest.mark.parametrize("kind", CLASSES)
def test_a_copy_in_16_bits_is_one_more_path_and_counts(kind: type[PackedLinear], tmp_path: Path) -> None:
    paths.use(FACTS, tmp_path)
    plain, linear = kind.sample(weight(512, 256)), kind.sample(weight(512, 256)).copy_()
    assert linear.paths[-1] == COPIED
    assert {*linear.paths[:-1]} == {*plain.paths} - {"integers"}  # nothing rounds the rows beside a copy
    assert stored_bytes([linear]) == stored_bytes([plain]) + 2 * 512 * 256
    assert stored_bytes([linear.copy_()]) == stored_bytes([plain]) + 2 * 512 * 256
    assert linear.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    wanted = x.double() @ plain.unpack(0, 512, torch.float32).double().t()
    linear.path = lambda _rows: COPIED  # type: ignore[method-assign]
    assert (linear(x).double() - wanted).norm() / wanted.norm() < 0.005
    del linear.path
    plain.settle(), linear.settle()
    assert plain.place != linear.place
    assert COPIED not in {plain.path(rows) for rows in ROWS}


@pytest.mark.skipif(not can_copy(), reason="this CPU does not multiply 16 bits by itself")
@pytest.mark.parametrize("kind", CLASSES)
def test_without_figures_many_rows_take_the_copy(kind: type[PackedLinear]) -> None:
    linear = kind.sample(weight(64, 64)).copy_()
    assert linear.path(1) == "kernel"
    assert linear.path(1 << 20) == COPIED


@pytest.mark.parametrize(("rows", "width"), [(1, 3), (64, 1024), (65, 1024), (200, 700), (3, 100_000)])
def test_chunks_round_as_the_whole(rows: int, width: int) -> None:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    x[0] = 0
    for dtype in (torch.int8, torch.float32, torch.bfloat16):
        found, scales = round_rows(x, dtype)
        codes, wanted = round_symmetric(x)
        assert found.dtype == dtype
        assert torch.equal(found.float(), codes)
        assert torch.equal(scales, wanted)


def test_every_path_of_w8a8_multiplies_the_integers_themselves() -> None:
    linear = Int8Linear.sample(weight(64, 96).clamp_(-2, 2).round())
    linear.scale.fill_(1.0)
    codes = torch.randint(-2, 3, (9, 96), generator=torch.Generator().manual_seed(1)).float()
    wanted = (codes.long() @ linear.codes.long().t()).float()
    within = wanted.to(cpu_kernels().compute_dtype).float()  # where a path gives 16 bits, the sums are rounded last
    for name in linear.paths:
        found = getattr(linear, name)(codes)
        assert torch.equal(found, wanted) or torch.equal(found, within), name


@pytest.mark.parametrize("kind", CLASSES)
def test_every_path_is_timed_at_every_number_of_rows(kind: type[PackedLinear], tmp_path: Path) -> None:
    paths.use(FACTS, tmp_path)
    linear = kind.sample(weight(512, 256))
    linear.settle()
    (file,) = tmp_path.glob("paths-*.json")
    assert {name: [sorted(each) for each in found] for name, found in json.loads(file.read_text()).items()} == {
        linear.place: [sorted(linear.paths)] * len(ROWS)
    }


def test_the_fastest_path_at_hand_is_taken_by_rows(tmp_path: Path) -> None:
    paths.use(FACTS, tmp_path)
    times = ranking("kernel", "unpacked", "widened")
    times[64] = {"kernel": 2.0, "unpacked": 1.0, "widened": 0.5}
    taken: list[tuple[int, int]] = []
    paths.settle("int8_weight_only 512x1024", (576, 1024), lambda shape: taken.append(shape) or times)
    linear = Int8WeightLinear.sample(weight(1024, 576))
    assert taken == [(512, 1024)]
    assert [linear.path(rows) for rows in (1, 45, 46, 90, 91, 9999)] == [
        "kernel",
        "kernel",
        "widened",
        "widened",
        "kernel",
        "kernel",
    ]
    odd = Int8WeightLinear.sample(weight(1024, 570))  # aten's kernel does not take it
    assert [odd.path(rows) for rows in (1, 64)] == ["unpacked", "widened"]


def test_a_number_of_rows_counts_as_the_nearest_by_ratio() -> None:
    assert len(TURNS) == len(ROWS) - 1
    for turn, low, high in zip(TURNS, ROWS[:-1], ROWS[1:], strict=True):
        assert turn * turn <= low * high < (turn + 1) ** 2


@pytest.mark.parametrize(
    ("size", "power"), [(1, 1), (45, 32), (46, 64), (576, 512), (192, 256), (1536, 2048), (49152, 4096)]
)
def test_sizes_count_as_the_nearest_power_of_two(size: int, power: int) -> None:
    assert paths.name_of("kind", (size, 64)) == f"kind {power}x64"


def test_another_process_reads_what_the_first_one_found(tmp_path: Path) -> None:
    paths.use(FACTS, tmp_path)
    paths.settle("int4 512x512", (512, 512), lambda _: ranking("unpacked", "kernel"))
    paths.forget()
    paths.use(FACTS, tmp_path)
    paths.settle("int4 512x512", (512, 512), lambda _: pytest.fail("measured again"))
    assert paths.fastest("int4", (512, 512), 1, ("kernel", "unpacked")) == "unpacked"
    paths.use({"device_name": "another"}, tmp_path)
    assert paths.fastest("int4", (512, 512), 1, ("kernel", "unpacked")) is None


def test_what_another_process_found_meanwhile_is_taken(tmp_path: Path) -> None:
    paths.use(FACTS, tmp_path)
    other = paths.Known(paths.known.machine, paths.known.file)
    paths.settle("int4 512x512", (512, 512), lambda _: ranking("unpacked", "kernel"))
    paths.known.ranked = other.ranked
    paths.settle("int4 512x512", (512, 512), lambda _: pytest.fail("measured again"))
    assert paths.fastest("int4", (512, 512), 1, ("kernel", "unpacked")) == "unpacked"


@pytest.mark.parametrize(
    "content", ["", "[]", '{"int4 512x512": [["kernel"]]}', '{"int4 512x512": [[], 1, 2, 3, 4, 5, 6, 7]}']
)
def test_a_file_that_no_version_wrote_is_measured_anew(tmp_path: Path, content: str) -> None:
    paths.use(FACTS, tmp_path)
    file = paths.known.file
    assert file is not None
    file.write_text(content)
    paths.use(FACTS, tmp_path)
    paths.settle("int4 512x512", (512, 512), lambda _: ranking("unpacked", "kernel"))
    assert paths.fastest("int4", (512, 512), 1, ("kernel", "unpacked")) == "unpacked"


def test_a_folder_that_cannot_be_written_costs_a_line_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    paths.use(FACTS, tmp_path / "file" / "below")
    paths.settle("int4 512x512", (512, 512), lambda _: ranking("unpacked", "kernel"))
    assert paths.fastest("int4", (512, 512), 1, ("kernel", "unpacked")) == "unpacked"
    assert "cannot be kept" in caplog.text


def test_a_winner_carries_what_was_in_use_and_another_machine_leaves_it(tmp_path: Path) -> None:
    paths.use(FACTS, tmp_path / "one")
    paths.settle("int4 512x512", (512, 512), lambda _: ranking("unpacked", "kernel"))
    carried = json.loads(json.dumps(paths.in_use({"int4 512x512", "int4 64x64"})))
    assert carried["fastest"] == {"int4 512x512": ["unpacked"] * len(ROWS)}
    paths.use(FACTS, tmp_path / "other", carried)
    assert paths.fastest("int4", (512, 512), 1, ("kernel", "unpacked")) == "unpacked"
    paths.use({"device_name": "another"}, tmp_path / "other", carried)
    assert paths.fastest("int4", (512, 512), 1, ("kernel", "unpacked")) is None


def test_a_winner_changes_nothing_that_is_in_use(tmp_path: Path) -> None:
    paths.use(FACTS, tmp_path)
    paths.settle("int4 512x512", (512, 512), lambda _: ranking("unpacked", "kernel"))
    before = paths.digest({"int4 512x512"})
    paths.use(FACTS, tmp_path, {"machine": paths.known.machine, "fastest": {"int4 512x512": ["kernel"] * len(ROWS)}})
    assert paths.digest({"int4 512x512"}) == before
    paths.forget()
    assert paths.digest({"int4 512x512"}) != before


def test_small_weights_and_weights_without_values_are_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    paths.use(FACTS, tmp_path)
    monkeypatch.setattr(path_times, "times", lambda *_: pytest.fail("measured"))
    settle_paths(nn.Sequential(Int8WeightLinear.sample(weight(64, 128))))
    with FakeTensorMode():  # type: ignore[no-untyped-call]
        empty = Int8WeightLinear(torch.empty(1024, 576, dtype=torch.int8), torch.empty(1024), None)
    settle_paths(nn.Sequential(empty))
    assert not list(tmp_path.glob("paths-*.json"))


def test_where_nothing_is_known_each_class_has_its_rule() -> None:
    linear = Int4Linear.sample(weight(64, 64))
    if block_rows() is not None:
        assert [linear.path(rows) for rows in (1, linear.kernel_rows, linear.kernel_rows + 1)] == [
            "kernel",
            "kernel",
            "unpacked",
        ]
    assert places(nn.Sequential(linear, nn.Linear(4, 4))) == {"int4 64x64"}


def test_the_rule_goes_first_unless_another_path_saves_more_than_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"rule": lambda rows: rows, "other": lambda rows: rows}
    for other, first in ((0.97, "rule"), (0.9, "other")):
        monkeypatch.setattr(path_times, "_fastest", lambda *_: {"rule": 1.0, "other": other})  # noqa: B023
        found = path_times.times((8, 8), lambda _: (calls, lambda _: "rule"))
        assert all(min(each, key=each.__getitem__) == first for each in found.values())
