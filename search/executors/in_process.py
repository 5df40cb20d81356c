"""Runs trials in the driver's own process, for debugging: a crash ends the study, and a hang hangs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from typing_extensions import override

from objectives.evaluation.problem import CheckReport, Problem
from objectives.protocols.candidate import Candidate
from objectives.tasks.provenance import Source
from objectives.types import Failure, Gate, Measurement, Outcome, Reason
from search.errors import Unmeasured
from search.executors.evaluating import evaluator_of
from search.executors.protocol import Executor, Session

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class InProcess(Executor):
    """Runs trials in the driver's own process; it has no settings."""

    @override
    def start(self, problem: Problem) -> InProcessSession:
        return InProcessSession(problem)


class InProcessSession(Session):
    """Answers at once, with completed futures."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def __enter__(self) -> Self:
        """Load torch and build the evaluator."""
        self._evaluator = evaluator_of(self._problem)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forget the models."""
        del self._evaluator

    @override
    def prepare(self) -> Future[Mapping[str, str]]:
        return _completed(self._evaluator.prepare)

    @override
    def sources(self) -> Future[list[Source]]:
        return _completed(self._evaluator.sources)

    @override
    def check(self) -> Future[CheckReport]:
        return _completed(self._evaluator.check)

    @override
    def evaluate(self, candidate: Candidate, gate: Gate | None = None) -> Future[Outcome]:
        def measure() -> Outcome:
            try:
                return self._evaluator(candidate, gate)
            except Exception as error:
                return Failure(Reason.ERROR, f"{type(error).__name__}: {error}")

        return _completed(measure)

    @override
    def predict_losses(self, candidates: Sequence[Candidate]) -> Future[list[float]]:
        return _completed(lambda: _or_unmeasured(lambda: self._evaluator.predict_losses(candidates)))

    @override
    def confirm(self, candidates: Sequence[Candidate]) -> Future[list[Measurement]]:
        return _completed(lambda: _or_unmeasured(lambda: self._evaluator.confirm(candidates)))


def _or_unmeasured(function: Callable[[], T]) -> T:
    try:
        return function()
    except Exception as error:
        raise Unmeasured(f"{type(error).__name__}: {error}") from error


def _completed(function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
    return future
