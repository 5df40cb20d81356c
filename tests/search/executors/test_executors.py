"""One contract for every yaml of conf/executor, then real faults for those that isolate."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from omegaconf import OmegaConf
from pebble import ProcessExpired

from objectives.devices.cpu import Cpu
from objectives.errors import ModelError
from objectives.evaluation.problem import Problem
from objectives.measuring.interleaved import Interleaved
from objectives.models import Checkpoint
from objectives.protocols.candidate import Candidate
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.off import Off
from objectives.runtime.torch import Torch
from objectives.tasks.progress import SoFar
from objectives.types import Failure, Measurement, Outcome, Reason
from search.commands.run import CONF
from search.executors.worker import Worker
from search.space.instantiate import build
from search.study.waiting import awaited
from tests.search.conftest import Quiet
from tests.search.fakes import FaultyWorkload, InstantTask, SlowTask, meet

EXECUTORS = sorted(Path(CONF).glob("executor/*.yaml"))
HERE: dict[str, dict[str, Any]] = {
    "local": {"cpus": sorted(os.sched_getaffinity(0))[:2]},
    "ray": {"devices": 1},
}
"""The settings that an executor needs on this machine."""


def built(file: Path) -> Any:
    """Build the executor of a yaml."""
    node = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(node, dict)
    return build({**node, **HERE.get(file.stem, {})}, "executor")


def candidate(fault: str = "none", **recipe: float) -> Candidate:
    return Candidate(Structured(**recipe), RoundToNearest(), FaultyWorkload(fault=fault), Off(), Torch())


@pytest.fixture(scope="module")
def problem(tiny_folder) -> Problem:
    checkpoint = Checkpoint(path=str(tiny_folder("llama")), head="causal_lm")
    timing = Interleaved(warmups=0, min_rounds=1, max_rounds=1, strain=1.0, slowdown=1e9)
    return Problem(checkpoint, InstantTask(), Cpu(threads=1), timing, candidate())


@pytest.fixture(params=EXECUTORS, ids=lambda file: file.stem)
def executor(request):
    return built(request.param)


@pytest.fixture(scope="module")
def sessions(problem) -> Iterator[dict[str, Any]]:
    """One of each that lasts: a process takes seconds to start."""
    with ExitStack() as stack:
        yield {file.stem: stack.enter_context(built(file).start(problem)) for file in EXECUTORS}


@pytest.fixture(params=[file.stem for file in EXECUTORS])
def session(request, sessions):
    return sessions[request.param]


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_study(executor, problem, tmp_path) -> None:
    """It comes before the sessions that last: an actor of theirs may have the only core of this process."""
    broken = replace(problem, model=Checkpoint(path=str(tmp_path), head="causal_lm"))
    with executor.start(broken) as session, pytest.raises(ModelError, match=r"config\.json"):
        session.prepare().result(timeout=120)


def test_an_executor_describes_the_machine_and_measures(session) -> None:
    facts = session.prepare().result(timeout=120)
    assert facts["device"] == "cpu"
    assert len(facts["model_sha256"]) == 64
    outcome = session.evaluate(candidate()).result(timeout=120)
    losses = session.predict_losses([candidate(), candidate(ratio=0.5)]).result(timeout=120)
    confirmed = session.confirm([candidate(), candidate(ratio=0.5)]).result(timeout=120)
    assert losses[0] == 0 < losses[1]
    assert [len(one.samples["speedup"]) for one in confirmed] == [1, 1]
    assert isinstance(outcome, Measurement)
    assert outcome.metrics["accuracy"] == 0.5
    assert len(outcome.samples["latency"]) == 1


@pytest.mark.slow
def test_a_worker_may_allocate_so_much_and_no_more(problem) -> None:
    for most, expected in ((4e9, Failure), (None, Measurement)):
        with Worker(max_memory=most).start(problem) as session:
            outcome = session.evaluate(candidate("allocate")).result(timeout=120)
            assert isinstance(outcome, expected)
            if most is not None:
                assert outcome.reason is Reason.OUT_OF_MEMORY
                assert isinstance(session.evaluate(candidate()).result(timeout=120), Measurement)


def test_failures_come_back_as_values(session) -> None:
    outcomes = {
        fault: session.evaluate(candidate(fault)).result(120) for fault in ("raise", "no_memory", "unsupported")
    }
    again = session.evaluate(candidate()).result(timeout=120)
    assert {fault: outcome.reason for fault, outcome in outcomes.items()} == {
        "raise": Reason.ERROR,
        "no_memory": Reason.OUT_OF_MEMORY,
        "unsupported": Reason.UNSUPPORTED,
    }
    assert outcomes["raise"].message == "ValueError: a bug"
    assert isinstance(again, Measurement)


def test_an_executor_answers_a_check(session) -> None:
    report = session.check().result(timeout=240)
    assert report.scores[0].whole
    assert report.blocks == 3
    assert len(report.scores[0].examples) == 2
    assert report.run_seconds > 0


def test_a_worker_is_used_again_and_a_hang_ends_at_the_time_limit_with_the_next_trial_elsewhere(sessions) -> None:
    session = sessions["worker"]
    pids = {pid_of(session.evaluate(candidate(ratio=ratio)).result(timeout=120)) for ratio in (0.0, 0.5)}
    session._timeout = 2.0  # a process has started, which may take longer
    hung = session.evaluate(candidate("hang")).result(timeout=120)
    session._timeout = 60.0
    pids.add(pid_of(session.evaluate(candidate()).result(timeout=120)))
    died = session.evaluate(candidate("kill")).result(timeout=120)
    assert len(pids - {os.getpid()}) == 2
    assert (hung.reason, died.reason) == (Reason.TIMEOUT, Reason.CRASHED)
    assert "2 s" in hung.message
    assert "SIGKILL" in died.message


def pid_of(outcome: Outcome) -> int:
    assert isinstance(outcome, Measurement)
    return int(outcome.samples["accuracy"][0])


WAYS_TO_DIE = {"kill": "SIGKILL", "segfault": "SIGSEGV", "exit": "exit code 3"}


@pytest.mark.slow  # each opens the model anew; by default such a trial hangs, and processes without a model die
def test_a_trial_may_die_in_any_way_and_the_next_one_runs(problem) -> None:
    with Worker(timeout=60).start(problem) as session:
        for fault, words in WAYS_TO_DIE.items():
            outcome = session.evaluate(candidate(fault)).result(timeout=120)
            assert outcome.reason == Reason.CRASHED
            assert words in outcome.message
        assert isinstance(session.evaluate(candidate()).result(timeout=120), Measurement)


def test_a_process_that_dies_is_told_by_its_way_and_gets_a_successor_also_when_it_was_idle(problem) -> None:
    with Worker(timeout=60).start(problem) as session:
        for fault, words in WAYS_TO_DIE.items():
            died = session._schedule(meet, (fault,), 60)
            with pytest.raises(ProcessExpired):
                died.result(timeout=60)
            outcome = session._outcome(died)
            assert outcome.reason == Reason.CRASHED
            assert words in outcome.message
        pid = session._schedule(os.getpid, (), 60).result(timeout=60)
        os.kill(pid, signal.SIGKILL)
        time.sleep(1)  # until the pool has seen it
        assert session._schedule(os.getpid, (), 60).result(timeout=60) not in (pid, os.getpid())


class Watched(Quiet):
    """Progress that keeps what it was shown of the scoring."""

    def __init__(self) -> None:
        super().__init__()
        self.scored: list[SoFar | None] = []

    def scoring(self, far: SoFar | None) -> None:
        self.scored.append(far)


@pytest.mark.slow
def test_a_worker_tells_how_far_its_scoring_is_also_after_one_was_killed_in_its_midst(
    problem, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("search.study.waiting.LOOK", 0.02)
    monkeypatch.setattr("search.study.waiting.IDLE", 0.02)
    slow = replace(problem, task=SlowTask(killed=str(tmp_path / "killed")))
    with Worker(timeout=60).start(slow) as session:
        for reason, last in ((Reason.CRASHED, 5), (None, 9)):
            seen = Watched()
            outcome = awaited(session.evaluate(candidate()), session, seen)
            told = [far for far in seen.scored if far is not None]
            assert getattr(outcome, "reason", None) is reason
            assert told[0].done < 5
            assert max(far.done for far in told) >= last
            assert [far.done for far in told] == sorted(far.done for far in told)
            assert {far.total for far in told} <= {0, 10}
            assert told[-1].seconds > 0.15 * last
        assert seen.scored[-1] is None
        assert session.scoring() is None


def measured_until_a_lock_is_lost(problem) -> int:
    """Lose a lock of the pool, as a signal between taking it and giving it back does; return the worker's pid."""
    pid = 0
    try:
        with Worker(timeout=60).start(problem) as session:
            pid = session._schedule(os.getpid, (), 60).result(timeout=60)
            session._pool._context.task_queue.mutex.acquire()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return pid


def test_a_pool_that_lost_a_lock_is_killed(problem, monkeypatch) -> None:
    monkeypatch.setattr("search.executors.worker.GRACE", 1.0)
    pid = measured_until_a_lock_is_lost(problem)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=20)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_worker_that_dies_as_a_trial_comes_costs_at_most_that_trial(problem) -> None:
    with Worker(timeout=60).start(problem) as session:
        pid = int(session.evaluate(candidate()).result(timeout=120).samples["accuracy"][0])
        os.kill(pid, signal.SIGKILL)
        hit = session.evaluate(candidate(ratio=0.5)).result(timeout=120)
        assert isinstance(hit, Measurement) or hit.reason == Reason.CRASHED
        assert isinstance(session.evaluate(candidate()).result(timeout=120), Measurement)
