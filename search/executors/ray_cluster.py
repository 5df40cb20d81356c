"""Runs trials on a Ray cluster: one actor per device of one kind, on whatever machine that is.

Ray places the actors and notices their deaths; retries are the study's own, so an actor is never restarted by Ray. A
killed actor gets a successor. A machine that leaves takes its devices along: the study goes on with the others.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import psutil
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from typing_extensions import override

from objectives.devices.process_settings import ENVIRONMENT
from objectives.evaluation.problem import Problem
from objectives.protocols.optional import Plural
from objectives.settings import Count, Name, Positive
from search.errors import ConfigError
from search.executors.actor_session import ActorSession, Census
from search.executors.pool import PoolSession
from search.executors.protocol import Executor, MeasuresElsewhere
from search.executors.ray_exchange import Registry, mark, unmark
from search.executors.reaper import DONE

_STORE_BYTES = 256 << 20
"""Memory for Ray's own objects in a cluster of ours: what travels are candidates and figures."""
_MISSING = "executor=ray needs the package ray: pip install 'paretune[ray]'"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RayCluster(Executor, MeasuresElsewhere):
    """The settings of the actors.

    ``address``: of a running cluster, ``auto`` for the one of this machine; null starts one here for the study.
    ``devices``: how many actors, null for as many as the cluster holds. ``cpus``: cores of each. ``kind``: Ray's name
    of the accelerator (``H100``), where the cluster has several. ``timeout``: seconds that one trial may take before
    its actor is killed. ``max_memory``: bytes that each actor may allocate.
    """

    address: Name | None = None
    devices: Count | None = None
    cpus: Count = 1
    kind: Name | None = None
    timeout: Positive = 600.0
    max_memory: Positive | None = None

    @override
    def start(self, problem: Problem) -> RaySession:
        """Raise ConfigError where Ray is not installed."""
        try:
            import ray as _ray  # noqa: F401
        except ImportError as error:
            raise ConfigError(_MISSING) from error
        return RaySession(problem, self)

    @property
    @override
    def is_elsewhere(self) -> bool:
        return self.address is not None

    @property
    def needs(self) -> dict[str, float]:
        """Return what an actor takes besides cores, by Ray's names of resources."""
        return {f"accelerator_type:{self.kind}": 0.001} if self.kind else {}


def _require_answer(address: str | None) -> None:
    """Raise ConfigError where nobody answers at ``address``: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return  # auto, local, or a name that Ray resolves
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ConfigError(f"executor.address: no cluster of Ray answers at {address}: {error}") from error


class RaySession(PoolSession):
    """Actors of one study, one per device."""

    def __init__(self, problem: Problem, settings: RayCluster) -> None:
        super().__init__([])
        self._problem, self._settings = problem, settings
        self._started = False
        self._marker = ""
        self._reaper: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Connect to the cluster, or start one, and ask it for actors. Raises ConfigError."""
        self._connect()
        try:
            census = Census(self._room)
            room = census.room()
            count = self._settings.devices or room
            if not room or count > room:
                raise ConfigError(f"executor.devices: the cluster has room for {room} {self._per_actor}, got {count}")
            make = self._maker()
            self.admit([ActorSession(make, self._settings.timeout, census) for _ in range(count)])
            census.living = count
            return super().__enter__()
        except BaseException:
            self._disconnect()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the actors, and the cluster where it is ours."""
        try:
            super().__exit__(kind, error, trace)
        finally:
            self._disconnect()

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        _require_answer(self._settings.address)
        ours: dict[str, Any] = {} if self._settings.address else self._own_cluster()
        try:
            ray.init(
                self._settings.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                **ours,
            )
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise ConfigError(f"executor.address: no cluster of Ray at {self._settings.address}: {error}") from error
        self._started = True
        if not self._settings.address:
            self._watch()

    def _watch(self) -> None:
        """Let a process end those of the cluster where this one is killed: some of Ray's own would live on."""
        words = [sys.executable, "-m", "search.executors.reaper"]
        self._reaper = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
            env={**os.environ, **self._environment},
        )
        own = {self._reaper.pid, os.getpid()}
        children = [child for child in psutil.Process().children(recursive=True) if child.pid not in own]
        self._tell("\n".join(f"{child.pid} {child.create_time()}" for child in children))

    def _tell(self, lines: str) -> None:
        assert self._reaper is not None
        assert self._reaper.stdin is not None
        with suppress(BrokenPipeError):
            self._reaper.stdin.write(f"{lines}\n")
            self._reaper.stdin.flush()

    def _own_cluster(self) -> dict[str, Any]:
        cores = len(os.sched_getaffinity(0))
        return {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _STORE_BYTES}

    def _disconnect(self) -> None:
        import ray

        if self._marker and self._problem.cache is not None:
            unmark(self._problem.cache, self._marker)
        if self._started:
            ray.shutdown()
        self._started = False
        if self._reaper is not None:
            self._tell(DONE)
            self._reaper.communicate()
            self._reaper = None

    @property
    def _per_actor(self) -> str:
        unit = "GPUs" if isinstance(self._problem.device, Plural) else f"processes of {self._settings.cpus} cores"
        return f"{unit} of kind {self._settings.kind}" if self._settings.kind else unit

    def _room(self) -> int:
        """Return how many actors the machines that are there now have room for, whatever runs on them."""
        import ray

        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        return sum(self._room_of(node["Resources"]) for node in nodes if node["Alive"])

    def _room_of(self, resources: Mapping[str, float]) -> int:
        """Return how many actors one machine has room for."""
        if any(name not in resources for name in self._settings.needs):
            return 0
        room = int(resources.get("CPU", 0.0) // self._settings.cpus)
        return min(room, int(resources.get("GPU", 0.0))) if isinstance(self._problem.device, Plural) else room

    @property
    def _environment(self) -> dict[str, str]:
        """Return the environment of the actors, which find modules where this process does."""
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path if os.path.isdir(folder or "."))
        return {**ENVIRONMENT, "OMP_NUM_THREADS": str(self._settings.cpus), "PYTHONPATH": path}

    def _maker(self) -> Any:
        """Return a function that asks the cluster for one more actor."""
        import ray

        from search.executors.ray_actor import Measurer

        settings, device = self._settings, self._problem.device
        options: dict[str, Any] = {
            "num_cpus": settings.cpus,
            "num_gpus": 1 if isinstance(device, Plural) else 0,
            "resources": settings.needs or None,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": self._environment},
        }
        actor = ray.remote(**options)(Measurer)
        cache = self._problem.cache
        self._marker = "" if cache is None else mark(cache)
        registry = None if cache is None else ray.remote(num_cpus=0)(Registry).remote()
        arguments = (ray.put(self._problem), settings.cpus, settings.max_memory, self._marker, registry)
        return lambda: actor.remote(*arguments)
