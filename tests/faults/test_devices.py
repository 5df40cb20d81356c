"""Faults of measuring: memory of a device, other work beside it, clocks, weights that are not what they were."""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from objectives.devices.cpu import Cpu
from objectives.errors import ModelError
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.measuring.interleaved import Interleaved
from objectives.models import Checkpoint
from objectives.protocols.candidate import Candidate
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.off import Off
from objectives.runtime.torch import Torch
from objectives.types import Failure, Measurement, Reason, Timing
from objectives.workloads.generation import Generation
from search.executors.worker import Worker
from tests.search.fakes import FaultyWorkload, InstantTask

pytestmark = pytest.mark.faults

QUICK = Interleaved(warmups=0, min_rounds=6, max_rounds=12, min_seconds=0.0, max_seconds=3.0)


def candidate(ratio: float = 0.0, batch: int = 1) -> Candidate:
    workload = Generation(batch_size=batch, prompt_tokens=8, new_tokens=4)
    return Candidate(Structured(ratio=ratio), RoundToNearest(), workload, Off(), Torch())


@pytest.fixture
def problem(tiny_folder: Callable[[str], Path]) -> Problem:
    checkpoint = Checkpoint(path=str(tiny_folder("llama")), head="causal_lm")
    return Problem(checkpoint, InstantTask(), Cpu(threads=1), QUICK, candidate())


@pytest.mark.row(5, "host memory runs out", "a failed trial out_of_memory; the next one is clean")
def test_host_memory(problem: Problem) -> None:
    faulty = replace(candidate(), workload=FaultyWorkload(fault="allocate"))
    sound = replace(candidate(), workload=FaultyWorkload())
    with Worker(max_memory=4e9).start(replace(problem, baseline=sound)) as session:
        failed = session.evaluate(faulty).result(timeout=120)
        assert isinstance(failed, Failure)
        assert failed.reason is Reason.OUT_OF_MEMORY
        assert isinstance(session.evaluate(sound).result(timeout=120), Measurement)


@pytest.mark.row(6, "device memory runs out", "a failed trial out_of_memory; the next trial runs")
def test_device_memory(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Evaluator(problem)
    real = Generation.run

    def run(workload: Generation, *arguments: Any) -> None:
        if workload.batch_size == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        real(workload, *arguments)

    monkeypatch.setattr(Generation, "run", run)
    failed = evaluator(candidate(0.5, batch=2))
    assert isinstance(failed, Failure)
    assert failed.reason is Reason.OUT_OF_MEMORY
    assert evaluator.pool.built == {}
    assert isinstance(evaluator(candidate(0.5)), Measurement)


@pytest.mark.row(7, "many trials in one process", "the first and the thirtieth peak of a cell agree to the byte")
def test_thirty_trials(problem: Problem) -> None:
    evaluator = Evaluator(replace(problem, timing=replace(QUICK, min_rounds=2, max_rounds=2)))
    peaks = []
    for place in range(30):
        outcome = evaluator(candidate(0.5 if place in (0, 29) else 0.1 + place / 100))
        assert isinstance(outcome, Measurement)
        peaks.append(outcome.metrics["peak_memory"])
    assert peaks[0] == peaks[29]


@pytest.mark.row(29, "the clock jumps", "durations are those of the monotonic clock")
def test_a_clock_that_jumps(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    real, jumps = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + 3600.0 * (next(jumps) % 2))
    outcome = Evaluator(problem)(candidate(0.5))
    assert isinstance(outcome, Measurement)
    seconds = {name: value for name, value in outcome.metrics.items() if name.endswith(("seconds", ".p50"))}
    assert all(0 <= value < 600 for value in seconds.values()), seconds


@pytest.mark.row(30, "a device that works on while Python goes on", "it is waited for before both stamps")
def test_a_device_that_is_asynchronous(problem: Problem) -> None:
    from objectives.devices.stopwatch import WallStopwatch

    done: list[float] = []

    class Behind:
        """Work that ends a twentieth of a second after it was asked for."""

        def __init__(self) -> None:
            self.ends = 0.0

        def submit(self) -> None:
            self.ends = time.perf_counter() + 0.05

        def synchronize(self) -> None:
            time.sleep(max(0.0, self.ends - time.perf_counter()))
            done.append(time.perf_counter())

    device = Behind()
    stopwatch = WallStopwatch(device.synchronize)
    stopwatch.start(1)
    device.submit()
    stopwatch.end_phase("prefill")
    assert len(done) == 2
    assert stopwatch.timing(1).latency[0] >= 0.05


def spin(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        math.factorial(2000)


@pytest.fixture
def busy() -> Iterator[None]:
    """Keep two processes busy on every core."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=spin, args=(60.0,), daemon=True) for _ in range(2 * (torch.get_num_threads() or 1) + 2)
    ]
    for process in processes:
        process.start()
    time.sleep(1.0)
    yield
    for process in processes:
        process.kill()
        process.join()


@pytest.mark.row(31, "other work on the same cores", "the trial says that it was contended")
@pytest.mark.usefixtures("busy")
def test_other_work(problem: Problem) -> None:
    timing = Interleaved(warmups=0, min_rounds=6, max_rounds=30, min_seconds=0.5, max_seconds=3.0, patience=1.0)
    outcome = Evaluator(replace(problem, timing=timing))(candidate(0.5, batch=8))
    assert isinstance(outcome, Measurement)
    assert outcome.metrics["contended"]


@pytest.mark.row(32, "the machine grows slower", "speed-ups are ratios taken in turns, and do not drift along")
def test_a_machine_that_grows_slower(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    from objectives.devices.stopwatch import WallStopwatch

    problem = replace(problem, timing=replace(QUICK, min_rounds=16, max_rounds=16, slowdown=1e9, strain=1.0))
    calm = Evaluator(problem)(candidate(0.5, batch=8))
    real, factor = WallStopwatch.timing, [1.0]

    def slower(watch: WallStopwatch, items: int) -> Timing:
        factor[0] *= 1.05
        timing = real(watch, items)
        return replace(timing, latency=tuple(seconds * factor[0] for seconds in timing.latency))

    monkeypatch.setattr(WallStopwatch, "timing", slower)
    drifted = Evaluator(problem)(candidate(0.5, batch=8))
    assert isinstance(calm, Measurement)
    assert isinstance(drifted, Measurement)
    assert factor[0] > 4  # measured one after the other they would differ by more than two
    assert drifted.metrics["speedup"] == pytest.approx(calm.metrics["speedup"], rel=0.25)


@pytest.mark.row(33, "weights that are missing or left over", "refused, with their names")
@pytest.mark.parametrize("how", ["missing", "left over"])
def test_weights_that_do_not_fit(how: str, problem: Problem, tmp_path: Path) -> None:
    folder = copied(problem, tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "mlp" in name)
    if how == "missing":
        del weights[name]
    else:
        weights["model.layers.99.mlp.up_proj.weight"] = torch.zeros(2, 2)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"mlp|blocks"):
        Evaluator(replace(problem, model=Checkpoint(path=str(folder), head="causal_lm"))).prepare()


@pytest.mark.row(34, "bits flip in the weights", "a study notices that its weights changed, and refuses to go on")
def test_bit_rot(problem: Problem, tmp_path: Path) -> None:
    import optuna

    from search.errors import StudyConflict
    from search.study import opening

    folder = copied(problem, tmp_path)
    model = replace(problem, model=Checkpoint(path=str(folder), head="causal_lm"))
    stored = optuna.create_study()
    opening.settle_machine(stored, Evaluator(model).prepare())
    file = folder / "model.safetensors"
    rotten = bytearray(file.read_bytes())
    rotten[-5] ^= 8
    file.write_bytes(rotten)
    with pytest.raises(StudyConflict, match="the weights differ"):
        opening.settle_machine(stored, Evaluator(model).prepare())


def copied(problem: Problem, tmp_path: Path) -> Path:
    """Return a copy of the problem's checkpoint."""
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(problem.model.folder(), folder)
    json.loads((folder / "config.json").read_text())
    return folder
