"""Runs trials in one isolated process that lives for the whole study.

Torch is imported and the model loaded only once. A segmentation fault, a kill or a hang costs one trial, and the next
trial gets a fresh process. The process is spawned with its environment set beforehand, since malloc and OpenMP read
theirs when they start.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from pebble import ProcessExpired, ProcessPool
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from typing_extensions import override

from objectives.devices.parent import end_with
from objectives.devices.process_settings import ENVIRONMENT
from objectives.evaluation.problem import Problem
from objectives.settings import Positive
from objectives.tasks.progress import SoFar, listen
from objectives.types import Failure, Reason
from search.executors.board import Board
from search.executors.evaluating import Evaluating, evaluator_of
from search.executors.place import Place
from search.executors.protocol import Executor, TellsScoring
from search.executors.remote import RemoteSession, call
from search.executors.scriptless import ScriptlessContext
from search.executors.signals import deferred
from search.terminal.quiet_log import Shown

log = logging.getLogger(__name__)

T = TypeVar("T")


GRACE = 20.0
"""Seconds that a pool may take to stop, before its process is killed."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Worker(Executor):
    """The settings of the worker process.

    ``timeout``: seconds that one trial may take before its process is killed. ``max_memory``: bytes that the process
    may allocate, conversions included; null for no limit.
    """

    timeout: Positive = 600.0
    max_memory: Positive | None = None

    @override
    def start(self, problem: Problem) -> WorkerSession:
        return WorkerSession(problem, self.timeout, self.max_memory)


class WorkerSession(RemoteSession, TellsScoring):
    """A pebble pool of one spawned process."""

    def __init__(
        self, problem: Problem, timeout: float, max_memory: float | None = None, place: Place | None = None
    ) -> None:
        self._problem, self._timeout, self._max_memory = problem, timeout, max_memory
        self._place = place or Place()
        self._board = Board()

    def __enter__(self) -> Self:
        """Start the process."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Inside a joblib worker the inherited start method is "loky", which a spawned child does not know.
        self._start_method = multiprocessing.get_start_method(allow_none=True)
        multiprocessing.set_start_method("spawn", force=True)
        self._pool = self._new_pool()
        return self

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=1,
            context=ScriptlessContext(),
            initializer=_initialise,
            initargs=(self._problem, self._place, self._max_memory, Shown(), self._board),
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let an idle process go; kill one that is still measuring."""
        try:
            self._leave(kind is None)
        finally:
            multiprocessing.set_start_method(self._start_method, force=True)

    def _leave(self, idle: bool) -> None:
        if idle:
            self._pool.close()  # type: ignore[no-untyped-call]
            self._pool.join()
            return
        stopping = Thread(target=self._stop, daemon=True)  # a lock of the pool may be lost where a signal came
        stopping.start()
        stopping.join(GRACE)
        if stopping.is_alive():
            log.warning("the worker did not stop within %g s and is killed", GRACE)
            for child in multiprocessing.active_children():
                child.kill()

    def _stop(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    @override
    def _called(self, method: str, arguments: tuple[object, ...], timeout: float) -> Future[Any]:
        return self._schedule(_call, (method, *arguments), timeout)

    @override
    def scoring(self) -> SoFar | None:
        return self._board.read()

    def _schedule(self, function: Callable[..., Any], arguments: tuple[object, ...], timeout: float) -> Future[Any]:
        """Send a task to the process.

        A pool gives up for good when its process dies between two tasks; then a new pool takes its place.
        """
        self._board.clear()
        for _ in range(2):
            if not self._pool.active:
                log.warning("the worker process died while it had nothing to do; a new one starts")
                self._pool.join()
                self._pool = self._new_pool()
            try:
                with deferred():  # it takes locks that stopping needs
                    scheduled: Future[Any] = self._pool.schedule(function, args=arguments, timeout=timeout)
                return scheduled
            except RuntimeError:  # it gave up since we looked
                continue
        raise RuntimeError("worker processes die before they have anything to do")

    @override
    def _failure(self, error: BaseException, timeout: float) -> Failure:
        return _failure(error, timeout)


def _failure(error: BaseException, timeout: float) -> Failure:
    """Describe why a task of the worker failed."""
    if isinstance(error, TimeoutError):
        return Failure(Reason.TIMEOUT, f"no result within {timeout:g} s; the process was killed")
    if isinstance(error, ProcessExpired):
        return Failure(Reason.CRASHED, f"the worker process died ({_exit_in_words(error.exitcode)})")
    if isinstance(error, BrokenProcessPool):
        return Failure(Reason.CRASHED, "the worker process died before it took up the trial")
    if isinstance(error, CancelledError):
        return Failure(Reason.CRASHED, "the worker was stopped")
    log.error("the worker failed", exc_info=error)
    return Failure(Reason.ERROR, f"{type(error).__name__}: {error}")


def _exit_in_words(code: int) -> str:
    """Return an exit code in words: ``killed by SIGKILL`` or ``exit code 3``."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


# Below: the worker's side.

_problem: Problem | None = None
_evaluator: Evaluating | None = None


def _initialise(problem: Problem, place: Place, max_memory: float | None, shown: Shown, board: Board) -> None:
    """Keep the problem, take the place, limit the memory, and tell how far scoring is.

    The process ignores Ctrl-C, which the driver handles, and ends with the driver.
    """
    global _problem
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with(parent.pid)
    place.take()
    if max_memory is not None:  # what is mapped from files does not count
        resource.setrlimit(resource.RLIMIT_DATA, (int(max_memory), int(max_memory)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shown.show_messages()
    listen(board.write)
    _problem = problem


def _get_evaluator() -> Evaluating:
    global _evaluator
    if _evaluator is None:
        assert _problem is not None
        _evaluator = evaluator_of(_problem)
    return _evaluator


def _call(method: str, *arguments: Any) -> Any:
    if method != "check":
        return call(_get_evaluator(), method, *arguments)
    from objectives.runtime.engines.silence import silence

    with silence():
        return call(_get_evaluator(), method, *arguments)
