"""A device of a user's own, of another name: nothing that runs models asks what it is called."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typing_extensions import override

from objectives.cache import Cache
from objectives.calibration.statistics import Statistics
from objectives.devices import cpu
from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda
from objectives.devices.peaks import Effort, probe, whole
from objectives.errors import Unsupported
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.measuring.bench import Bench
from objectives.measuring.fingerprint import fingerprint
from objectives.measuring.interleaved import Interleaved
from objectives.models import Checkpoint
from objectives.protocols.readings import Peaks
from objectives.protocols.running import Device, Stopwatch
from objectives.recovery.distillation import Distillation
from objectives.runtime.cuda_graphs import CudaGraphs
from objectives.runtime.openvino import OpenVino
from objectives.runtime.torch import Torch
from objectives.types import Measurement, Memory
from objectives.workloads.generation import Generation
from search.errors import ConfigError
from search.space.instantiate import build
from search.space.members import require_members
from tests.objectives.recipes import built
from tests.objectives.runtimes import candidate, rounded
from tests.objectives.standins import stub
from tests.search.fakes import InstantTask

PEAKS = Peaks(1e10, {"float32": 1e11})
RUN = Generation(batch_size=1, prompt_tokens=2, new_tokens=2)
ONCE = Interleaved(warmups=0, min_rounds=1, max_rounds=1, min_seconds=0.0, max_seconds=1.0, patience=0.0)


@dataclass(frozen=True)
class Counted:
    """A counter of joules that moves by one at every reading."""

    name: str = "socket"
    span: float = float("inf")
    tick: float = 1e-3
    period: float = 1e-3

    def read(self) -> float:
        _READINGS.append(float(len(_READINGS)))
        return _READINGS[-1]


_READINGS: list[float] = []


@dataclass(frozen=True)
class Board(Device):
    """Computes as a CPU does, by a class that writes what it must and leaves the rest as it is."""

    label: str = "board:1"

    @property
    @override
    def name(self) -> str:
        return self.label

    @property
    @override
    def bits(self) -> frozenset[int]:
        return frozenset({16, 8})

    @override
    def start(self) -> None: ...

    @override
    def describe(self) -> Mapping[str, str]:
        return {"device": "board", "device_name": "Board"}

    @override
    def pack(self, linear: nn.Linear, bits: int, codes: Any, scheme: Any) -> nn.Module:
        return Cpu().pack(linear, bits, codes, scheme)

    @override
    def to_device_(self, model: Any) -> None:
        Cpu().to_device_(model)

    @override
    def stopwatch(self) -> Stopwatch:
        return Cpu().stopwatch()

    @override
    def memory(self, model: Any, workload: Any) -> Memory:
        return Cpu().memory(model, workload)

    @override
    def free_memory(self) -> int:
        return Cpu().free_memory()

    @override
    def peaks(self) -> Peaks:
        return PEAKS


@dataclass(frozen=True)
class Metered(Board):
    @override
    def energy(self) -> Iterator[Counted]:
        yield Counted()


class Half(Device):
    """Lacks nearly all."""

    name = "half"


SHORT = Effort(whole(2**21), ((8, 16, 8),), [torch.float32], seconds=0.0)


@pytest.fixture(autouse=True, scope="module")
def _quickly_probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A probe of this CPU takes no seconds here, and what it finds is kept for these tests only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(cpu, "_effort", lambda: SHORT)
        yield


def test_ours_are_told_from_others_by_their_settings_and_can_be_sent() -> None:
    for one, other in ((Cpu(threads=2), Cpu(threads=1)), (Cuda(index=1), Cuda())):
        assert pickle.loads(pickle.dumps(one)) == one != other
        assert hash(one) == hash(replace(one))


def test_a_device_that_names_the_protocol_as_its_base_need_not_answer_what_it_has_nothing_to_say_of() -> None:
    device = Board()
    require_members(device, "device", "device", Device)
    claims = (device.parks, device.writes_checkpoints, device.runs_engines, device.records_graphs, device.sparse)
    assert not any(claims)
    assert (list(device.energy()), dict(device.conditions()), device.embeddings) == ([], {}, {16})
    for call in (lambda: device.pack_embeddings_(stub(), 8), lambda: device.pack_sparse(nn.Linear(4, 4))):
        with pytest.raises(Unsupported, match="board:1"):
            call()


def test_what_it_must_answer_is_asked_for_in_one_line_when_it_is_built() -> None:
    with pytest.raises(ConfigError, match=r"device: Can't instantiate abstract class Half .*\bpeaks\b") as caught:
        build({"_target_": f"{__name__}.Half"}, "device", (f"{__name__}.",))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"no energy; .*no peaks; .*\(objectives/.*\.py: Device\)"):
        require_members(object(), "device", "device", Device)


def test_runtimes_ask_a_device_what_it_can_do() -> None:
    small = candidate(rounded(8, embeddings=8), Torch(), Generation())
    renamed, card = Cpu(name="my-cpu"), Cuda(name="cuda:1")
    assert OpenVino().supports(replace(small, runtime=OpenVino()), "causal_lm", renamed) is None
    assert Torch().supports(small, "causal_lm", renamed) is None
    assert OpenVino().supports(small, "causal_lm", card) == "runs on CPUs, device is cuda:1: device=cpu"
    assert str(Torch().supports(small, "causal_lm", card)).startswith("embeddings have 16 bits on cuda:1: ")
    plain = replace(small, quantization=rounded(8))
    assert CudaGraphs().supports(plain, "causal_lm", card) is None
    assert CudaGraphs().supports(plain, "causal_lm", Board()) == "records what a GPU runs: device=cuda"
    assert Torch().supports(plain, "causal_lm", Board()) is None


def test_its_facts_are_in_the_fingerprint_as_it_tells_them() -> None:
    facts = fingerprint(Board())
    assert (facts["device"], facts["device_name"]) == ("board", "Board")
    assert "driver" not in facts


def test_its_own_counter_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objectives.measuring.bench.ENERGY_SECONDS", 0.01)
    for device, is_metered in ((Metered(), True), (Board(), False)):
        bench = Bench(device, ONCE, stub(), RUN, PEAKS)
        ran = bench.run(RUN, stub(), None, None)
        assert ("energy" in ran.metrics) == is_metered


def test_a_probe_runs_where_it_is_told_and_waits_as_it_is_told() -> None:
    waited: list[int] = []
    found = probe("cpu:0", SHORT, lambda: waited.append(1))
    assert set(found.flops) == {"float32"}
    assert waited


@dataclass(frozen=True)
class Parking(Board):
    """Has memory of its own, or so it says."""

    @property
    @override
    def parks(self) -> bool:
        return True


def evaluator(folder: Path, device: Device, cache: Cache | None = None) -> Evaluator:
    baseline = candidate(rounded(16), Torch(), RUN)
    model = Checkpoint(path=str(folder), head="causal_lm")
    return Evaluator(Problem(model, InstantTask(), device, ONCE, baseline, cache))


@pytest.mark.parametrize(
    ("device", "is_parked"), [(Board(), False), (Parking(), True), (Cpu(name="x", threads=1), False)]
)
def test_a_candidate_is_measured_on_it_and_the_baseline_is_parked_where_it_says_so(
    tiny_folder: Callable[[str], Path], device: Device, is_parked: bool
) -> None:
    found = evaluator(tiny_folder("llama"), device)
    baseline = found.problem.baseline
    measured = found(replace(baseline, quantization=rounded(8)))
    assert isinstance(measured, Measurement)
    assert measured.metrics["speedup"] > 0
    assert bool(found.timer._parkable()) == is_parked


@pytest.mark.parametrize(("device", "is_kept"), [(Board(), False), (Cpu(name="x"), True)])
def test_its_compressed_models_are_kept_where_it_says_that_they_can_be_written(
    tiny_folder: Callable[[str], Path], tmp_path: Path, device: Device, is_kept: bool
) -> None:
    found = evaluator(tiny_folder("llama"), device, Cache(folder=str(tmp_path / "kept")))
    parts = found.problem.baseline
    name = found.pool.stages._stored_name((parts.pruning, parts.recovery, parts.quantization))
    assert (name is not None) == is_kept


def test_distillation_leaves_the_model_where_it_was(
    tiny: Callable[[str], Any], statistics: Callable[[str], Statistics], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, moved = tiny("llama").copy(), []
    built("pruning", "structured", ratio=0.3, multiple_of=16).prune_(model, statistics("llama"))
    move = model.module.to
    monkeypatch.setattr(model.module, "to", lambda place: moved.append(place) or move(place))
    monkeypatch.setattr(type(model.module), "device", property(lambda _: torch.device("cpu:0")))
    Distillation(steps=1).recover_(model, statistics("llama"))
    assert moved[-1] == torch.device("cpu:0")
