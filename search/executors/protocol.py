"""The protocol between a study and an executor.

The yaml's object is an :class:`Executor`. Its ``start`` returns a :class:`Session` for one problem. The study enters
the session, calls ``prepare`` once, then ``evaluate`` for every candidate, and leaves the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from objectives.evaluation.problem import CheckReport, Problem
from objectives.protocols.candidate import Candidate
from objectives.tasks.progress import SoFar
from objectives.tasks.provenance import Source
from objectives.types import Gate, Measurement, Outcome


class Session(Protocol):
    """Evaluates candidates of one problem."""

    def __enter__(self) -> Self:
        """Acquire processes."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the processes, also in the middle of a trial."""

    def prepare(self) -> Future[Mapping[str, str]]:
        """Load the model. The future yields facts about hardware, versions and weights, or raises ObjectiveError."""

    def sources(self) -> Future[list[Source]]:
        """Return the inputs that scores depend on, as far as they were read (:mod:`objectives.tasks.provenance`).

        ``prepare`` comes first.
        """

    def check(self) -> Future[CheckReport]:
        """Check the problem without a study (:mod:`objectives.evaluation.checkup`).

        The future raises ObjectiveError where a study would fail at once.
        """

    def evaluate(self, candidate: Candidate, gate: Gate | None = None) -> Future[Outcome]:
        """Start measuring a candidate; ``gate``: how precisely accuracy has to be known (``objectives.types.Gate``).

        The future yields a Failure for every error of the trial; it never raises.
        """

    def predict_losses(self, candidates: Sequence[Candidate]) -> Future[list[float]]:
        """Predict the log-loss, nats, that each candidate costs; NaN where it is not known. No candidate is built.

        The future raises Unmeasured for every error.
        """

    def confirm(self, candidates: Sequence[Candidate]) -> Future[list[Measurement]]:
        """Measure candidates again, against each other in shared rounds.

        The future raises Unmeasured for every error.
        """


@runtime_checkable
class TellsScoring(Protocol):
    """A session that knows how far the scoring of the model is that it evaluates."""

    def scoring(self) -> SoFar | None:
        """Return how far the scoring is that runs now; None where nothing is scored."""


@runtime_checkable
class MeasuresSeveral(Protocol):
    """A session that evaluates several candidates at a time; any other evaluates one."""

    @property
    def slots(self) -> int:
        """Return how many: the devices that are there now, at least 1."""


def slots_of(session: Session) -> int:
    """Return how many candidates ``session`` evaluates at a time."""
    return session.slots if isinstance(session, MeasuresSeveral) else 1


@runtime_checkable
class MeasuresElsewhere(Protocol):
    """An executor that may measure on other machines: whether its device is there, only those can tell."""

    @property
    def is_elsewhere(self) -> bool:
        """Return whether it does, with its present settings."""


class Executor(Protocol):
    """The settings of a way to run trials."""

    def start(self, problem: Problem) -> Session:
        """Return a new session for ``problem``."""
