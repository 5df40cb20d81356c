"""What the study asks of an executor.

Life: the yaml's object is :class:`Executor`; ``start`` gives a :class:`Session` for one problem, which is entered,
asked to ``prepare`` once, then to ``evaluate`` candidates, and left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, Self

from objectives.evaluation.problem import CheckReport, Problem
from objectives.protocols.candidate import Candidate
from objectives.tasks.provenance import Source
from objectives.types import Gate, Measurement, Outcome


class Session(Protocol):
    """Evaluates candidates of one problem."""

    def __enter__(self) -> Self:
        """Acquire processes."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release them, also in the middle of a trial."""

    def prepare(self) -> Future[Mapping[str, str]]:
        """Load the model; the result describes hardware, versions and weights. Fails with ObjectiveError."""

    def sources(self) -> Future[list[Source]]:
        """What scores depend on, as far as it was read, after ``prepare``: see :mod:`objectives.tasks.provenance`."""

    def check(self) -> Future[CheckReport]:
        """Look at the problem, without a study: see :mod:`objectives.evaluation.checkup`. Fails with ObjectiveError."""

    def evaluate(self, candidate: Candidate, gate: Gate | None = None) -> Future[Outcome]:
        """Start measuring; ``gate``: see ``objectives.evaluation.evaluator``.

        The future yields a Failure for whatever befalls the trial; it never raises for it.
        """

    def predict_losses(self, candidates: Sequence[Candidate]) -> Future[list[float]]:
        """The log-loss, nats, that each is expected to cost; NaN where that is not known; nothing is built.

        The future raises Unmeasured for whatever befalls it.
        """

    def confirm(self, candidates: Sequence[Candidate]) -> Future[list[Measurement]]:
        """Time measured candidates again, against each other. The future raises Unmeasured for whatever befalls it."""


class Executor(Protocol):
    """Settings of a way to run trials."""

    def start(self, problem: Problem) -> Session:
        """A runner for ``problem``."""
