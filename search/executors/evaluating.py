"""Finds what measures the candidates of a problem, in whatever process that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from objectives.evaluation.problem import CheckReport, Problem
from objectives.protocols.candidate import Candidate
from objectives.tasks.provenance import Source
from objectives.types import Gate, Measurement, Outcome


class Evaluating(Protocol):
    """Measures candidates: :mod:`objectives.evaluation.evaluator`, or a stand-in of a problem's own."""

    def prepare(self) -> Mapping[str, str]:
        """Load the model; return facts about hardware, versions and weights."""

    def sources(self) -> list[Source]:
        """Return the inputs that scores depend on, as far as they were read."""

    def check(self) -> CheckReport:
        """Look at the problem without a study."""

    def __call__(self, candidate: Candidate, gate: Gate | None = None) -> Outcome:
        """Measure a candidate."""

    def predict_losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """Predict the log-loss, nats, that each candidate costs."""

    def confirm(self, candidates: Sequence[Candidate]) -> list[Measurement]:
        """Measure candidates against each other in shared rounds."""


@runtime_checkable
class BringsEvaluator(Protocol):
    """A problem that is measured by something of its own, as a recorded grid is."""

    def evaluator(self) -> Evaluating:
        """Return a new one for this process."""


def evaluator_of(problem: Problem) -> Evaluating:
    """Return what measures the candidates of ``problem`` in this process."""
    if isinstance(problem, BringsEvaluator):
        return problem.evaluator()
    from objectives.evaluation.evaluator import Evaluator

    return Evaluator(problem)
