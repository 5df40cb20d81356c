"""A recorded grid behind real executors: real processes and actors, whose stages sleep as long as they once took.

What one process makes, scores or gathers the others find in a folder, as they would in the cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from grids import read
from replay import Grid, Replay

from objectives.evaluation.problem import CheckReport, Problem
from objectives.protocols.candidate import Candidate
from objectives.tasks.provenance import Source
from objectives.types import Gate, Measurement, Outcome
from search.executors.protocol import Executor, Session


@dataclass(frozen=True, kw_only=True)
class RecordedProblem(Problem):
    """The problem of a recorded grid. ``folder``: what processes share; ``speed``: recorded seconds in one of sleep."""

    name: str
    epsilon: float
    folder: str
    speed: float = 1.0
    seed: int = 0

    def evaluator(self) -> Recorded:
        """Return what answers from the grid."""
        return Recorded(self)


class Recorded:
    """Answers from the grid, after the recorded seconds."""

    def __init__(self, problem: RecordedProblem) -> None:
        self._problem, self._folder = problem, Path(problem.folder)
        self._replay = Replay(Grid(read(problem.name), problem.epsilon), seed=problem.seed)

    def prepare(self) -> Mapping[str, str]:
        self._spend(self._replay.grid.recorded["load_seconds"])
        return {"device": "recorded"}

    def sources(self) -> list[Source]:
        return []

    def check(self) -> CheckReport:
        raise NotImplementedError

    def __call__(self, candidate: Candidate, gate: Gate | None = None) -> Outcome:
        self._read()
        before = self._replay.spent
        outcome = self._replay._outcome(candidate, gate)
        self._spend(self._replay.spent - before)  # who is killed now has told nobody
        self._write()
        return outcome

    def predict_losses(self, candidates: Sequence[Candidate]) -> list[float]:
        before = self._replay.spent
        losses: list[float] = self._replay.predict_losses(candidates).result()
        self._spend(self._replay.spent - before)
        self._write()
        return losses

    def confirm(self, candidates: Sequence[Candidate]) -> list[Measurement]:
        raise NotImplementedError

    def _spend(self, seconds: float) -> None:
        time.sleep(seconds / self._problem.speed)
        with (self._folder / f"spent-{os.getpid()}").open("a") as file:
            file.write(f"{seconds}\n")

    def _read(self) -> None:
        """Take over what other processes left: models, statistics, and how many examples of a recipe were seen."""
        for file in self._folder.glob("made-*"):
            ratio, bits = map(float, file.name.split("-")[1:])
            self._replay._made.add((ratio, bits))
            self._replay._seen[ratio, bits] = int(file.read_text() or 0)
        self._replay._needs = frozenset(file.name[6:] for file in self._folder.glob("needs-*")) | self._replay._needs

    def _write(self) -> None:
        for need in self._replay._needs:
            (self._folder / f"needs-{need}").touch()
        for key in self._replay._made:
            part = self._folder / f".{os.getpid()}"
            part.write_text(str(self._replay._seen.get(key, 0)))
            part.replace(self._folder / f"made-{key[0]}-{key[1]}")


@dataclass(frozen=True)
class OnRecorded(Executor):
    """The executor ``inner`` with a recorded grid in place of a model."""

    inner: Executor
    name: str
    epsilon: float
    folder: str
    speed: float = 1.0
    seed: int = 0

    def start(self, problem: Problem) -> Session:
        own: dict[str, Any] = {field.name: getattr(problem, field.name) for field in fields(Problem)}
        more = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "inner"}
        return self.inner.start(RecordedProblem(**own, **more))

    @property
    def spent(self) -> float:
        """Return the seconds of all devices together, as they were recorded."""
        lines = (line for file in Path(self.folder).glob("spent-*") for line in file.read_text().splitlines())
        return sum(map(float, lines))
