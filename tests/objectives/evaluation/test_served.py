"""A load through the evaluator: a served baseline, paired bursts, bytes of the server, scores of the engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from objectives.cache import Cache
from objectives.devices.cpu import Cpu
from objectives.errors import ProcessLost, RequestFailed, TooSlow, Unsupported
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.failures import failure_of
from objectives.evaluation.problem import Problem
from objectives.models import Checkpoint
from objectives.protocols.candidate import Candidate
from objectives.protocols.serving import KEY
from objectives.runtime.llama_cpp import LlamaCpp
from objectives.runtime.openai_server import OpenAIServer
from objectives.runtime.servers import http
from objectives.runtime.servers.elsewhere import RunningServer
from objectives.runtime.torch import Torch
from objectives.types import Failure, Measurement, Reason, Reference
from objectives.workloads.generation import Generation
from objectives.workloads.serving import Serving
from tests.objectives.evaluation.test_engines_kept import QUICK, Sum
from tests.objectives.runtimes import candidate, rounded

LOAD = Serving(concurrency=1, prompt_tokens=6, new_tokens=8, burst=3, slo_ttft=30.0)
DENSE = candidate(rounded(16), LlamaCpp(), LOAD)


def evaluator(folder: Path, baseline: Candidate, cache: Path | None = None) -> Evaluator:
    model = Checkpoint(path=str(folder), head="causal_lm")
    kept = None if cache is None else Cache(folder=str(cache))
    return Evaluator(Problem(model, Sum(), Cpu(threads=1), QUICK, baseline, kept))


@pytest.fixture(scope="module")
def made(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    return evaluator(tiny_folder("llama"), DENSE, tmp_path_factory.mktemp("served"))


def measured(outcome: object) -> Measurement:
    assert isinstance(outcome, Measurement), outcome
    return outcome


def test_candidates_take_turns_with_the_served_dense_model(made: Evaluator) -> None:
    dense = measured(made(DENSE))
    busy = measured(made(replace(candidate(rounded(8), LlamaCpp(), replace(LOAD, concurrency=2, burst=6)))))
    for found in (dense, busy):
        metrics = found.metrics
        assert metrics["ttft"] <= metrics["ttft.p95"] <= metrics["latency.p99"]
        assert metrics["goodput"] == pytest.approx(metrics["request_throughput"])
        assert metrics["peak_memory"] > metrics["weight_bytes"] > 0
        assert "latency_ratio" not in metrics
    assert dense.metrics["speedup"] == 1.0
    assert busy.facts.timing is not None
    assert busy.facts.timing.reference is Reference.BASELINE
    assert busy.metrics["compression_speedup"] * busy.metrics["batching_speedup"] == pytest.approx(
        busy.metrics["speedup"]
    )
    assert len(busy.samples["request_ttft"]) % 6 == 0
    assert busy.metrics["accuracy"] != dense.metrics["accuracy"]


def test_several_loads_of_one_model_are_confirmed_together(made: Evaluator) -> None:
    loads = [LOAD, replace(LOAD, concurrency=2)]
    found = made.confirm([replace(DENSE, workload=load) for load in loads])
    assert [each.metrics["speedup"] > 0 for each in found] == [True, True]


def test_a_server_or_an_engine_that_ended_is_replaced(made: Evaluator) -> None:
    other = replace(DENSE, workload=replace(LOAD, prompt_tokens=7))
    measured(made(DENSE))
    runner: Any = made.runner(DENSE)
    os.kill(runner.server(LOAD.capacity())._process.pid, signal.SIGKILL)
    time.sleep(0.2)
    measured(made(other))  # beside the baseline, on a server of its own
    os.kill(runner.engine._process.pid, signal.SIGKILL)
    failed = made(replace(DENSE, workload=replace(LOAD, prompt_tokens=9)))
    if isinstance(failed, Failure):  # where it was asked at all
        assert failed.reason is Reason.CRASHED
    measured(made(replace(DENSE, workload=replace(LOAD, prompt_tokens=9))))


def test_confirming_works_again_after_an_engine_that_ended(tiny_folder: Callable[[str], Path]) -> None:
    batch = candidate(rounded(16), LlamaCpp(), Generation(prompt_tokens=6, new_tokens=2))
    other = evaluator(tiny_folder("llama"), candidate(rounded(16), Torch(), batch.workload))
    runner: Any = other.runner(batch)
    os.kill(runner.engine._process.pid, signal.SIGKILL)
    with pytest.raises(ProcessLost, match="killed by SIGKILL"):
        other.confirm([batch])
    (found,) = other.confirm([batch])
    assert found.metrics["speedup"] > 0


def test_a_server_of_somebody_elses_that_is_gone_may_come_back() -> None:
    with pytest.raises(ProcessLost, match=r"runtime\.url: .* start the server"):
        RunningServer(f"http://127.0.0.1:{http.free_port()}", None)


def test_lost_processes_and_slow_requests_close_no_other_cell() -> None:
    for error, reason in (
        (ProcessLost("x"), Reason.CRASHED), (RequestFailed("x"), Reason.ERROR), (TooSlow("x"), Reason.TIMEOUT),
        (Unsupported("x"), Reason.UNSUPPORTED),
    ):  # fmt: skip
        failure = failure_of(error)
        assert failure is not None
        assert failure.reason is reason


def test_more_texts_than_llama_cpp_takes_leave_the_space_one_by_one() -> None:
    for load, refused in ((replace(LOAD, concurrency=257), True), (replace(LOAD, concurrency=256), False)):
        asked = replace(DENSE, workload=load)
        assert (LlamaCpp().supports(asked, "causal_lm", Cpu()) is not None) is refused


def test_a_model_that_torch_runs_has_no_server(tiny_folder: Callable[[str], Path]) -> None:
    outcome = evaluator(tiny_folder("llama"), candidate(rounded(16), Torch(), LOAD))(
        candidate(rounded(16), Torch(), LOAD)
    )
    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.UNSUPPORTED
    assert "no server" in outcome.message


def test_a_server_of_somebody_elses_is_loaded_and_weighed_and_nothing_of_it_is_kept(
    made: Evaluator, tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = made.runner(DENSE).server(LOAD.capacity())  # type: ignore[attr-defined]
    monkeypatch.setenv(KEY, theirs.endpoint.key)
    baseline = candidate(rounded(16), OpenAIServer(url=theirs.endpoint.url), LOAD)
    other = evaluator(tiny_folder("llama"), baseline, tmp_path)
    found = measured(other(baseline)).metrics
    assert found["request_throughput"] > 0
    assert found["runtime_bytes"] > 2**20
    assert other.pool.stages.name(baseline, "time") is None
    absent = candidate(rounded(16), OpenAIServer(url=theirs.endpoint.url, model="another"), LOAD)
    outcome = other(absent)
    assert isinstance(outcome, Failure)
    assert "got another" in outcome.message
    monkeypatch.delenv(KEY)
    locked = evaluator(tiny_folder("llama"), baseline, tmp_path / "locked")(baseline)
    assert isinstance(locked, Failure)
    assert f"asks for a key: {KEY}=" in locked.message
