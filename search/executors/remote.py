"""Holds what sessions share that measure in another process, whatever carries their calls there and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from typing_extensions import override

from objectives.evaluation.problem import CheckReport
from objectives.protocols.candidate import Candidate
from objectives.tasks.provenance import Source
from objectives.types import Failure, Gate, Measurement, Outcome
from search.errors import Unmeasured
from search.executors.evaluating import Evaluating
from search.executors.protocol import Session

T = TypeVar("T")


class RemoteSession(Session):
    """A session whose calls go to an :class:`Evaluating` elsewhere; ``_timeout``: seconds that one trial may take."""

    _timeout: float

    @abstractmethod
    def _called(self, method: str, arguments: tuple[object, ...], timeout: float) -> Future[Any]:
        """Call a method of the evaluator, within ``timeout`` seconds; the future raises whatever goes wrong."""

    @abstractmethod
    def _failure(self, error: BaseException, timeout: float) -> Failure:
        """Describe why a call gave nothing."""

    @override
    def prepare(self) -> Future[Mapping[str, str]]:
        return self._called("prepare", (), self._timeout)

    @override
    def sources(self) -> Future[list[Source]]:
        return self._called("sources", (), self._timeout)

    @override
    def check(self) -> Future[CheckReport]:
        return self._called("check", (), self._timeout)

    @override
    def evaluate(self, candidate: Candidate, gate: Gate | None = None) -> Future[Outcome]:
        answer: Future[Outcome] = Future()
        called = self._called("evaluate", (candidate, gate), self._timeout)
        called.add_done_callback(lambda done: answer.set_result(self._outcome(done)))
        return answer

    def _outcome(self, done: Future[Any]) -> Outcome:
        error = error_of(done)
        outcome: Outcome = done.result() if error is None else self._failure(error, self._timeout)
        return outcome

    @override
    def predict_losses(self, candidates: Sequence[Candidate]) -> Future[list[float]]:
        return self._whole("predict_losses", candidates)

    @override
    def confirm(self, candidates: Sequence[Candidate]) -> Future[list[Measurement]]:
        return self._whole("confirm", candidates)

    def _whole(self, method: str, candidates: Sequence[Candidate]) -> Future[list[T]]:
        """Call ``method`` for all candidates at once, within a trial's time for each of them.

        They may all have to be built again. The future raises Unmeasured for every error.
        """
        timeout, answer = self._timeout * max(1, len(candidates)), Future[list[T]]()

        def settle(done: Future[list[T]]) -> None:
            error = error_of(done)
            if error is None:
                answer.set_result(done.result())
            else:
                answer.set_exception(Unmeasured(self._failure(error, timeout).message))

        self._called(method, (list(candidates),), timeout).add_done_callback(settle)
        return answer


def error_of(done: Future[Any]) -> BaseException | None:
    """Return what a call raised, or None; one that was cancelled raised that."""
    return CancelledError() if done.cancelled() else done.exception()


def call(evaluator: Evaluating, method: str, *arguments: Any) -> Any:
    """Call a method of an evaluator by the name that it has in a session."""
    if method == "evaluate":
        return evaluator(*arguments)
    return getattr(evaluator, method)(*arguments)
