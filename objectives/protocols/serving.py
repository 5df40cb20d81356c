"""Protocols of models that are served over HTTP, and of workloads that load a server with requests.

A *server* is a process that answers requests of several clients at once. It is made for a *capacity*, and its memory
depends on that.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from objectives.protocols.phases import Stopwatch
from objectives.protocols.running import Runner, Workload
from objectives.types import Timing

KEY = "PARETUNE_SERVER_KEY"
"""The environment variable with the key that a user's own server asks for."""


@dataclass(frozen=True)
class Capacity:
    """The most that a server has to hold: ``slots`` requests at a time, each of ``tokens``, prompt and answer."""

    slots: int
    tokens: int


@dataclass(frozen=True)
class Endpoint:
    """The address of a server that speaks as OpenAI's does: ``url``, as ``http://127.0.0.1:8000``; ``model``: a name.

    ``more``: fields that every request to it has besides; ``key``: what requests have to show, empty for nothing.
    """

    url: str
    model: str
    more: tuple[tuple[str, Any], ...] = ()
    key: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that every request has."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True)
class Answer:
    """The times of one streamed answer, in seconds after its request was sent.

    ``sent``: after the burst began; ``first``: the first token; ``last``: the end of the last part of the stream;
    ``gaps``: between its parts. ``read``, ``written``: tokens of prompt and answer.
    """

    sent: float
    first: float
    last: float
    gaps: tuple[float, ...]
    read: int
    written: int

    @property
    def tpot(self) -> float | None:
        """Return the time per output token after the first; None for an answer of one token."""
        return (self.last - self.first) / (self.written - 1) if self.written > 1 else None


@dataclass(frozen=True)
class LoadTiming(Timing):
    """The timing of bursts of requests; ``latency``: seconds of each burst; ``answers``: of all bursts.

    ``rate``: requests that came per second, where they did not wait for answers.
    """

    answers: tuple[Answer, ...] = ()
    rate: float | None = None


class Server(Protocol):
    """A running server, which ends with this object."""

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """Return where it answers."""

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """Return whether it still answers, as far as that is known without asking it."""

    @property
    @abstractmethod
    def resting(self) -> int:
        """Return the resident bytes that it took before the first request."""

    @abstractmethod
    def begin_peak(self) -> None:
        """Forget the highest memory so far."""

    @abstractmethod
    def peak(self) -> int:
        """Return the most resident bytes since :meth:`begin_peak`. Raises ProcessLost where it ended."""


@runtime_checkable
class Hosting(Protocol):
    """A runtime whose engines can be served."""

    @abstractmethod
    def unserved(self) -> str | None:
        """Return, in a line, why it cannot serve with its present settings; None where it can."""


@runtime_checkable
class HostsFolders(Hosting, Protocol):
    """A runtime that serves an engine which is a folder."""

    @abstractmethod
    def host(self, folder: Path, facts: Any, tokenizer: Any, threads: int, capacity: Capacity) -> Server:
        """Start a server of the engine in ``folder``. Raises Unsupported, ProcessLost, MemoryError.

        ``facts``: what stands in its ``engine.json`` (:class:`objectives.runtime.engines.folder.Facts`).
        """


@runtime_checkable
class Serves(Protocol):
    """A runner that can serve its model."""

    @abstractmethod
    def server(self, capacity: Capacity) -> Server:
        """Return a running server of that capacity, the same one while it runs. Raises Unsupported, ProcessLost."""


@runtime_checkable
class Loading(Protocol):
    """A workload that sends requests to a server."""

    @abstractmethod
    def capacity(self) -> Capacity:
        """Return what the server has to hold."""

    @abstractmethod
    def slo(self) -> Slo:
        """Return what a request has to keep to count as good."""

    @abstractmethod
    def timed(self, model: Runner, watch: Stopwatch) -> LoadTiming:
        """Send one burst of requests to the server of ``model``, and return how long everything took."""


class ServingRunner(Runner, Serves, Protocol):
    """A runner that serves."""


class LoadingWorkload(Workload, Loading, Protocol):
    """A workload that is a load."""


@dataclass(frozen=True)
class Slo:
    """The service level objective of a request, in seconds: what it has to keep to count as good; None asks nothing."""

    ttft: float | None = None
    tpot: float | None = None
    latency: float | None = None

    def __bool__(self) -> bool:
        """Return whether anything is asked."""
        return any(limit is not None for limit in (self.ttft, self.tpot, self.latency))

    def is_kept(self, answer: Answer) -> bool:
        """Return whether an answer keeps all of it."""
        pairs = ((answer.first, self.ttft), (answer.tpot or 0.0, self.tpot), (answer.last, self.latency))
        return all(limit is None or value <= limit for value, limit in pairs)
