"""The actor that measures on one device of a Ray cluster; it runs on the machine of that device."""

from __future__ import annotations

import logging
import os
import resource
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from typing_extensions import override

from objectives.devices.parent import end_with
from objectives.evaluation.problem import Problem
from objectives.protocols.candidate import Candidate
from objectives.protocols.optional import Plural
from objectives.types import Gate
from search.executors.evaluating import Evaluating, evaluator_of
from search.executors.ray_exchange import ExchangedCache, is_shared
from search.terminal.quiet_log import OURS


@dataclass(frozen=True)
class Answer:
    """The answer to a call: ``value``, or the ``error`` that it raised; ``messages``: warnings on the way."""

    value: Any = None
    error: Exception | None = None
    messages: tuple[tuple[str, int, str], ...] = ()


class _Kept(logging.Handler):
    """Keeps the messages that a study shows, until they are taken to it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[tuple[str, int, str]] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))

    def taken(self) -> tuple[tuple[str, int, str], ...]:
        taken, self.records = tuple(self.records), []
        return taken


class Measurer:
    """Measures candidates of one problem on its device, one call at a time."""

    def __init__(self, problem: Problem, cores: int, max_memory: float | None, marker: str, registry: Any) -> None:
        """Take ``cores`` of this machine that no other actor has, and share the cache's entries with other machines.

        The process ends with Ray's own of this machine, which in a cluster of the study ends with the driver.
        """
        end_with(os.getppid())
        if max_memory is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (int(max_memory), int(max_memory)))
        self._lock = None if isinstance(problem.device, Plural) else confine(cores)
        self._messages = _Kept()
        for name in OURS[:2]:
            logging.getLogger(name).addHandler(self._messages)
        if problem.cache is not None and not is_shared(problem.cache, marker):
            problem = replace(problem, cache=ExchangedCache.of(problem.cache, registry))
        self._problem = problem
        self._made: Evaluating | None = None

    def _evaluator(self) -> Evaluating:
        if self._made is None:
            self._made = evaluator_of(self._problem)
        return self._made

    def _answer(self, call: Callable[[Evaluating], Any]) -> Answer:
        try:
            return Answer(call(self._evaluator()), None, self._messages.taken())
        except Exception as error:
            return Answer(None, error, self._messages.taken())

    def prepare(self) -> Answer:
        """Load the model; give facts about hardware, versions and weights."""
        return self._answer(lambda evaluator: evaluator.prepare())

    def sources(self) -> Answer:
        """Give the inputs that scores depend on."""
        return self._answer(lambda evaluator: evaluator.sources())

    def check(self) -> Answer:
        """Look at the problem without a study."""
        return self._answer(lambda evaluator: evaluator.check())

    def evaluate(self, candidate: Candidate, gate: Gate | None) -> Answer:
        """Measure a candidate."""
        return self._answer(lambda evaluator: evaluator(candidate, gate))

    def predict_losses(self, candidates: Sequence[Candidate]) -> Answer:
        """Predict what compression costs."""
        return self._answer(lambda evaluator: evaluator.predict_losses(candidates))

    def confirm(self, candidates: Sequence[Candidate]) -> Answer:
        """Measure candidates against each other."""
        return self._answer(lambda evaluator: evaluator.confirm(candidates))

    def pid(self) -> int:
        """Return the process of this actor."""
        return os.getpid()


def confine(cores: int) -> FileLock | None:
    """Keep this process to a set of ``cores`` that no other actor of this machine has, and return its lock.

    Ray counts cores and does not say which. The lock goes with the process. None where all sets are taken.
    """
    allowed = sorted(os.sched_getaffinity(0))
    folder = Path(tempfile.gettempdir()) / f"paretune-cores-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for first in range(0, len(allowed) - cores + 1, cores):
        chosen = allowed[first : first + cores]
        lock = FileLock(str(folder / f"{chosen[0]}-{chosen[-1]}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        os.sched_setaffinity(0, chosen)
        return lock
    return None
