"""An engine that ends, hangs or fails its process is a reason, on any CPU, and nothing is left of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from objectives.cache import Cache
from objectives.devices.cpu import Cpu
from objectives.errors import ModelError, ObjectiveError, Unsupported
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.measuring.interleaved import Interleaved
from objectives.models import Checkpoint, LoadedModel
from objectives.runtime.engines import guard, probe_process
from objectives.runtime.engines.folder import open_engine, read_facts, write_facts
from objectives.runtime.engines.guard import Guard
from objectives.runtime.engines.probe import resident
from objectives.runtime.engines.probe_process import Ended
from objectives.runtime.torch import Torch
from objectives.types import Failure, Measurement, Reason
from objectives.workloads.generation import Generation
from tests.objectives.faulty_engine import LEFT, Fault, FaultyRuntime
from tests.objectives.runtimes import Hand, candidate, compressed, rounded
from tests.search.fakes import InstantTask

WORKLOAD = Generation(prompt_tokens=4, new_tokens=2)
QUICK = Interleaved(min_rounds=1, max_rounds=1, min_seconds=0.0, max_seconds=0.05, patience=0.0, warmups=0)
PATH = "tests.objectives.faulty_engine.FaultyRuntime"
ENDS = {
    "SIGFPE": "killed by SIGFPE", "SIGSEGV": "killed by SIGSEGV", "SIGABRT": "killed by SIGABRT",
    "SIGILL": "killed by SIGILL", "SIGKILL": "killed by SIGKILL", "exit": "exit code 3",
    "leave": "ended its process without an answer", "raise": "RuntimeError: no such operation",
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(tiny: Callable[[str], LoadedModel], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a tiny model's engine with a fault."""
    model = compressed(tiny("llama"), None, rounded(16))
    base = tmp_path_factory.mktemp("faulty")

    def written(runtime: FaultyRuntime) -> Path:
        return Hand(model, rounded(16), base).engine(lambda folder: runtime.write(folder, Hand(model, None, base)))

    return written


@pytest.fixture(scope="module")
def run() -> Callable[..., Ended]:
    """Runs the guard's process for an engine, once for all tests that try the same fault."""
    start, ends = probe_process.run, dict[object, Ended]()

    def ended(module: str, arguments: list[str], limit: float) -> Ended:
        settings = tuple(read_facts(Path(arguments[0])).settings.items())
        if settings not in ends:
            ends[settings] = start(module, arguments, limit)
        return ends[settings]

    return ended


@pytest.fixture
def tried(run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A note for every trial that is asked for."""
    started: list[str] = []

    def noted(module: str, *more: Any) -> Ended:
        started.append(module)
        return run(module, *more)

    monkeypatch.setattr(probe_process, "run", noted)
    return started


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may run these tests on this machine at the same time."""
    monkeypatch.setenv(LEFT, uuid4().hex)


def left() -> list[str]:
    """Processes that an engine left behind, and children of ours that nobody collected."""
    zombies = [str(one) for one in psutil.Process().children(recursive=True) if one.status() == psutil.STATUS_ZOMBIE]
    found = [one for one in psutil.process_iter(["cmdline"]) if os.environ[LEFT] in " ".join(one.info["cmdline"] or [])]
    _, strays = psutil.wait_procs(found, timeout=3)  # what was killed takes a moment to go
    return zombies + list(map(str, strays))


@pytest.mark.usefixtures("tried")
@pytest.mark.parametrize(("fault", "said"), ENDS.items())
def test_however_an_engine_ends_its_process_it_is_a_reason_in_one_line(
    engine: Callable[..., Path], fault: Fault, said: str
) -> None:
    runtime = FaultyRuntime(fault=fault)
    with pytest.raises(Unsupported) as caught:
        Guard(None).admit(engine(runtime), runtime, 1)
    text = str(caught.value)
    assert said in text
    assert text.startswith(f"numpy {runtime.versions()['numpy']} does not open and run this model with 1 thread on")
    assert "another runtime, version or device.threads" in text
    assert "\n" not in text
    assert not left()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other CPUs divide by zero without a word")
def test_a_division_by_zero_in_c_is_a_reason(engine: Callable[..., Path]) -> None:
    runtime = FaultyRuntime(fault="divide", at="run")
    with pytest.raises(Unsupported, match="with 2 threads on this CPU: killed by SIGFPE, in a process of its own"):
        Guard(None).admit(engine(runtime), runtime, 2)


@pytest.mark.parametrize("at", [pytest.param("open", marks=pytest.mark.slow), "run"])
def test_an_engine_that_hangs_is_ended_with_all_that_it_started(
    engine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, at: Any
) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 3.0)
    runtime = FaultyRuntime(fault="hang", at=at)
    with pytest.raises(Unsupported, match="still running after 3 s"):
        Guard(None).admit(engine(runtime), runtime, 1)
    assert not left()


def test_an_engine_that_wants_too_much_memory_says_so(engine: Callable[..., Path]) -> None:
    runtime = FaultyRuntime(fault="memory")
    with pytest.raises(MemoryError, match="faulty could not open the model: MemoryError"):
        Guard(None).admit(engine(runtime), runtime, 1)


def test_each_kind_is_tried_once_for_all_processes(
    engine: Callable[..., Path], tmp_path: Path, tried: list[str]
) -> None:
    cache = Cache(folder=str(tmp_path / "cache"))
    good, bad = FaultyRuntime(), FaultyRuntime(fault="SIGFPE")
    for _ in range(2):  # two processes, as it were
        one = Guard(cache)
        for folder in (engine(good), engine(good)):
            one.admit(folder, good, 1)
            with pytest.raises(Unsupported, match="SIGFPE"):
                one.admit(engine(bad), bad, 1)
    assert len(tried) == 2


@pytest.mark.parametrize("fault", ["raise", "exit", "SIGKILL"])
def test_what_may_not_happen_again_is_kept_for_this_process_only(
    engine: Callable[..., Path], tmp_path: Path, tried: list[str], fault: Fault
) -> None:
    cache, runtime = Cache(folder=str(tmp_path / "cache")), FaultyRuntime(fault=fault)
    one = Guard(cache)
    for each in (one, one, Guard(cache)):
        with pytest.raises(Unsupported):
            each.admit(engine(runtime), runtime, 1)
    assert len(tried) == 2


def test_another_version_cpu_thread_shape_or_setting_is_another_kind(
    engine: Callable[..., Path], tmp_path: Path, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, runtime = Cache(folder=str(tmp_path / "cache")), FaultyRuntime()
    folder = engine(runtime)
    Guard(cache).admit(folder, runtime, 1)
    Guard(cache).admit(folder, runtime, 1)
    assert len(tried) == 1
    Guard(cache).admit(folder, runtime, 2)
    Guard(cache).admit(folder, FaultyRuntime(at="run"), 1)
    with monkeypatch.context() as patch:
        patch.setattr(FaultyRuntime, "versions", lambda _self: {"numpy": "99"})
        Guard(cache).admit(folder, runtime, 1)
    with monkeypatch.context() as patch:
        patch.setattr(guard, "_instructions", lambda: "another CPU")
        Guard(cache).admit(folder, runtime, 1)
    facts = read_facts(folder)
    write_facts(folder, replace(facts, stored={**facts.stored, "more": 64}))
    Guard(cache).admit(folder, runtime, 1)
    assert len(tried) == 6


def test_a_runtime_of_ones_own_is_opened_by_who_made_it_only(engine: Callable[..., Path]) -> None:
    folder = engine(FaultyRuntime())
    with pytest.raises(ModelError, match=r"must start with one of objectives\.runtime\."):
        open_engine(folder, 1)
    found, facts = open_engine(folder, 1, (PATH,))
    assert facts.runtime == PATH
    assert hasattr(found, "run")
    assert resident(folder, WORKLOAD, 1, (PATH,)).peak >= 0


def test_an_engine_that_faults_while_it_is_weighed_is_a_reason_too(engine: Callable[..., Path]) -> None:
    folder = engine(FaultyRuntime(fault="SIGSEGV", at="run"))
    with pytest.raises(ObjectiveError, match=r"could not be weighed in a process of its own \(killed by SIGSEGV\)"):
        resident(folder, WORKLOAD, 1, (PATH,))


def test_an_evaluator_goes_on_after_an_engine_that_kills(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    model = Checkpoint(path=str(tiny_folder("llama")), head="causal_lm")
    dense = candidate(rounded(16), Torch(), WORKLOAD)
    evaluator = Evaluator(Problem(model, InstantTask(), Cpu(threads=1), QUICK, dense, Cache(folder=str(tmp_path))))
    for fault in ("SIGFPE", "exit"):
        found = evaluator(candidate(rounded(16), FaultyRuntime(fault=fault), WORKLOAD))  # type: ignore[arg-type]
        assert isinstance(found, Failure)
        assert found.reason is Reason.UNSUPPORTED
    assert isinstance(evaluator(dense), Measurement)
    healthy = evaluator(candidate(rounded(16), FaultyRuntime(), WORKLOAD))
    assert isinstance(healthy, Measurement), asdict(healthy)
    assert healthy.metrics["peak_memory"] > 0


@pytest.mark.parametrize("fault", ["none", "wrong"])
def test_an_engine_that_computes_another_model_is_refused(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, fault: Fault
) -> None:
    model = compressed(tiny("llama"), None, rounded(16))
    runtime = FaultyRuntime(fault=fault)
    if fault == "none":
        assert runtime.prepare(Hand(model, None, tmp_path)).head == "causal_lm"
        return
    with pytest.raises(
        Unsupported, match="FaultyRuntime reads this model otherwise than torch: its answer is 100% off"
    ):
        runtime.prepare(Hand(model, None, tmp_path))
