"""Runs trials on all devices of this machine: one isolated process per GPU, or per set of CPU cores."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from typing_extensions import override

from objectives.evaluation.problem import Problem
from objectives.settings import Count, Positive
from search.executors.place import places_of
from search.executors.pool import PoolSession
from search.executors.protocol import Executor
from search.executors.worker import WorkerSession


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Local(Executor):
    """The settings of the processes; each is one of :mod:`search.executors.worker`.

    ``cpus``: for a CPU, how many equal sets of cores, or the sets; of GPUs all visible ones are used. ``timeout``:
    seconds that one trial may take before its process is killed. ``max_memory``: bytes that each process may allocate.
    """

    cpus: Count | list[str | int | list[int]] | None = None
    timeout: Positive = 600.0
    max_memory: Positive | None = None

    @override
    def start(self, problem: Problem) -> PoolSession:
        """Raise ConfigError where the device has no such places."""
        places = places_of(problem.device, self.cpus)
        return PoolSession([WorkerSession(problem, self.timeout, self.max_memory, place) for place in places])
