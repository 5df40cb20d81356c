"""Trials in one isolated process that lives for the whole study.

Importing torch and loading the model is paid once; a segmentation fault, a kill or a hang costs one trial, and
the next one gets a fresh process. The process starts by spawn with its environment set beforehand: malloc and
OpenMP read theirs when they start.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pebble import ProcessExpired, ProcessPool
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from objectives.problem import Problem
from objectives.settings import Positive
from objectives.types import Candidate, Failure, Gate, Measurement, Outcome, Reason
from search.errors import Unmeasured

if TYPE_CHECKING:
    from objectives.evaluator import Evaluator

log = logging.getLogger(__name__)

ENVIRONMENT: Mapping[str, str] = {
    "MALLOC_ARENA_MAX": "1",  # one heap, so that freed memory can be given back and peaks repeat
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep: spinning costs 20-56 % noise on a shared machine
    "GOMP_SPINCOUNT": "5000",  # but not at once: to be woken takes longer than a small product (docs/log.md)
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "KINETO_LOG_LEVEL": "99",  # torch's profiler, which counts allocations, would report every start
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Worker:
    """``timeout``: seconds that one trial may take before its process is killed."""

    timeout: Positive = 600.0

    def start(self, problem: Problem) -> WorkerRunner:
        """See ``search.executors.protocol.Executor``."""
        return WorkerRunner(problem, self.timeout)


class WorkerRunner:
    """A pebble pool of one spawned process."""

    def __init__(self, problem: Problem, timeout: float) -> None:
        self._problem, self._timeout = problem, timeout

    def __enter__(self) -> Self:
        """Start the process."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Inside a joblib worker the inherited start method is "loky", which a spawned child does not know.
        multiprocessing.set_start_method("spawn", force=True)
        self._pool = ProcessPool(
            max_workers=1,
            context=multiprocessing.get_context("spawn"),
            initializer=_initialise,
            initargs=(self._problem,),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let an idle process go; kill one that is still measuring."""
        if kind is None:
            self._pool.close()  # type: ignore[no-untyped-call]
        else:
            self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def prepare(self) -> Future[Mapping[str, str]]:
        """See ``Runner``."""
        future: Future[Mapping[str, str]] = self._pool.schedule(_prepare, timeout=self._timeout)
        return future

    def evaluate(self, candidate: Candidate, gate: Gate | None = None) -> Future[Outcome]:
        """See ``Runner``."""
        answer: Future[Outcome] = Future()
        scheduled = self._pool.schedule(_evaluate, args=[candidate, gate], timeout=self._timeout)
        scheduled.add_done_callback(lambda done: answer.set_result(self._outcome(done)))
        return answer

    def predict(self, candidate: Candidate) -> Future[Mapping[str, float]]:
        """See ``Runner``."""
        future: Future[Mapping[str, float]] = self._pool.schedule(_predict, args=[candidate], timeout=self._timeout)
        return future

    def confirm(self, candidates: Sequence[Candidate]) -> Future[list[Measurement]]:
        """See ``Runner``."""
        timeout = self._timeout * max(1, len(candidates))  # they may all have to be built again
        answer: Future[list[Measurement]] = Future()
        scheduled = self._pool.schedule(_confirm, args=[list(candidates)], timeout=timeout)

        def settle(done: Future[list[Measurement]]) -> None:
            error = CancelledError() if done.cancelled() else done.exception()
            if error is None:
                answer.set_result(done.result())
            else:
                answer.set_exception(Unmeasured(_failure(error, timeout).message))

        scheduled.add_done_callback(settle)
        return answer

    def _outcome(self, done: Future[Any]) -> Outcome:
        error = CancelledError() if done.cancelled() else done.exception()
        outcome: Outcome = done.result() if error is None else _failure(error, self._timeout)
        return outcome


def _failure(error: BaseException, timeout: float) -> Failure:
    """What befell a task of the worker, in words."""
    if isinstance(error, TimeoutError):
        return Failure(Reason.TIMEOUT, f"no result within {timeout:g} s; the process was killed")
    if isinstance(error, ProcessExpired):
        return Failure(Reason.CRASHED, f"the worker process died ({_exit_in_words(error.exitcode)})")
    if isinstance(error, (CancelledError, BrokenProcessPool)):
        return Failure(Reason.INTERRUPTED, "the worker was stopped")
    log.error("the worker failed", exc_info=error)
    return Failure(Reason.ERROR, f"{type(error).__name__}: {error}")


def _exit_in_words(code: int) -> str:
    """``killed by SIGKILL`` or ``exit code 3``."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


# Below: the worker's side.

_problem: Problem | None = None
_evaluator: Evaluator | None = None


def _initialise(problem: Problem) -> None:
    """Keep the problem; Ctrl-C is the driver's to handle."""
    global _problem
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _problem = problem


def _get_evaluator() -> Evaluator:
    global _evaluator
    if _evaluator is None:
        from objectives.evaluator import Evaluator

        assert _problem is not None
        _evaluator = Evaluator(_problem)
    return _evaluator


def _prepare() -> Mapping[str, str]:
    return _get_evaluator().prepare()


def _evaluate(candidate: Candidate, gate: Gate | None) -> Outcome:
    return _get_evaluator()(candidate, gate)


def _predict(candidate: Candidate) -> Mapping[str, float]:
    return _get_evaluator().predict(candidate)


def _confirm(candidates: list[Candidate]) -> list[Measurement]:
    return _get_evaluator().confirm(candidates)
