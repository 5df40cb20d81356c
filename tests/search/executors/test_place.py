"""A measuring process gets its own cores, or its own GPU; places that would disturb each other are refused."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from typing import Any

import pytest

from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda
from objectives.errors import Unsupported
from search.errors import ConfigError
from search.executors import place
from search.executors.place import Place, places_of


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3, 6, 7})


@pytest.mark.parametrize(
    ("written", "sets"),
    [
        (1, [[0, 1, 2, 3, 6, 7]]),
        (3, [[0, 1], [2, 3], [6, 7]]),
        (4, [[0], [1], [2], [3]]),
        (["0-1", "6-7"], [[0, 1], [6, 7]]),
        ([[0, 2], "6-7"], [[0, 2], [6, 7]]),
        ([0, "3"], [[0], [3]]),
    ],
)
@pytest.mark.usefixtures("cores")
def test_cores_are_divided_or_given_as_sets_or_ranges(written: Any, sets: Sequence[Sequence[int]]) -> None:
    assert [list(each.cores) for each in places_of(Cpu(), written)] == [list(each) for each in sets]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "executor.cpus=2"),
        (7, "at most 6"),
        (["0-1", "1-2"], "belongs to one process"),
        (["0-1", "2"], "as many cores"),
        (["4-5"], r"may use the cores \[0, 1, 2, 3, 6, 7\], got \[4, 5\]"),
        (["0-99999999999"], r"may use the cores \[0, 1, 2, 3, 6, 7\], got 0-99999999999"),
        (["99999999999"], "got 99999999999"),
        (["99999999999-0"], "got 99999999999-0"),
        (["one"], "0-1 expected, got 'one'"),
        (["3-1"], "at least one core"),
        ([], "at least one core"),
    ],
)
@pytest.mark.usefixtures("cores")
def test_places_that_are_not_there_or_overlap_are_refused_by_the_key(written: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        places_of(Cpu(), written)
    assert str(refused.value).startswith("executor.cpus: ")


@pytest.mark.parametrize(
    ("visible", "seen"), [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_every_visible_gpu_is_a_place_where_it_is_the_only_one(
    visible: str | None, seen: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objectives.devices.cuda.gpus", lambda: 2)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [each.environment["CUDA_VISIBLE_DEVICES"] for each in places_of(Cuda(), None)] == list(seen)


def test_kinds_of_devices_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match=r"executor\.cpus: .* this study measures on cuda; .* never mixed"):
        places_of(Cuda(), 2)
    with pytest.raises(Unsupported, match=r"device\.index: every visible GPU is used, got index 1"):
        places_of(Cuda(index=1), None)


def cores_of(taken: Place) -> tuple[list[int], str]:
    taken.take()
    return sorted(os.sched_getaffinity(0)), os.environ["PARETUNE_TEST"]


def test_a_process_that_takes_its_place_is_confined_to_it() -> None:
    core = max(os.sched_getaffinity(0))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(cores_of, [Place((core,), {"PARETUNE_TEST": "here"})]) == ([core], "here")


def uuid_of(taken: Place) -> tuple[int, str]:
    taken.take()
    import torch

    return torch.cuda.device_count(), str(torch.cuda.get_device_properties(0).uuid)


@pytest.mark.gpu
def test_every_process_sees_a_gpu_of_its_own() -> None:
    places = places_of(Cuda(), None)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        seen = [pool.apply(uuid_of, [place]) for place in places]
    assert [count for count, _ in seen] == [1] * len(places)
    assert len({name for _, name in seen}) == len(places) >= 1
