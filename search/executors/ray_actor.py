"""The actor that measures on one device of a Ray cluster; it runs on the machine of that device."""

from __future__ import annotations

import logging
import os
import resource
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from typing_extensions import override

from objectives.devices.parent import end_with
from objectives.evaluation.problem import Problem
from objectives.protocols.optional import Plural
from search.executors.evaluating import Evaluating, evaluator_of
from search.executors.ray_exchange import ExchangedCache, is_shared
from search.executors.remote import call
from search.terminal.quiet_log import OURS

log = logging.getLogger(__name__)


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
        self._messages = _Kept()
        for name in OURS[:2]:
            logging.getLogger(name).addHandler(self._messages)
        self._locks = [] if isinstance(problem.device, Plural) else confine(cores)
        if problem.cache is not None and not is_shared(problem.cache, marker):
            problem = replace(problem, cache=ExchangedCache.of(problem.cache, registry))
        self._problem = problem
        self._made: Evaluating | None = None

    def _evaluator(self) -> Evaluating:
        if self._made is None:
            self._made = evaluator_of(self._problem)
        return self._made

    def call(self, method: str, *arguments: Any) -> Answer:
        """Call a method of the evaluator."""
        try:
            return Answer(call(self._evaluator(), method, *arguments), None, self._messages.taken())
        except Exception as error:
            return Answer(None, error, self._messages.taken())

    def pid(self) -> int:
        """Return the process of this actor."""
        return os.getpid()


def confine(cores: int) -> list[FileLock]:
    """Keep this process to ``cores`` that no other actor of this machine has, and return their locks.

    Ray counts cores and does not say which. The locks go with the process. Where too few are free, it stays where it is
    and says so: what it measures is disturbed.
    """
    folder = Path(tempfile.gettempdir()) / f"paretune-cores-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    taken: dict[int, FileLock] = {}
    for core in sorted(os.sched_getaffinity(0)):
        lock = FileLock(str(folder / f"{core}.lock"))
        with suppress(Timeout):
            lock.acquire(timeout=0)
            taken[core] = lock
        if len(taken) == cores:
            os.sched_setaffinity(0, taken)
            return list(taken.values())
    for lock in taken.values():
        lock.release()
    log.warning(
        "fewer than %d cores are free for an actor on %s: it measures beside others", cores, socket.gethostname()
    )
    return []
