"""Runs a load on a server of somebody else's, and everything else in torch."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import psutil
from typing_extensions import override

from objectives.devices import helpers
from objectives.errors import ProcessLost, Unsupported
from objectives.protocols.running import Device, Workload
from objectives.protocols.serving import KEY, Capacity, Endpoint, Loading, Server, Serves
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.servers import http
from objectives.runtime.servers.kept import memory_under_load
from objectives.runtime.servers.server import pids_of
from objectives.types import Memory, Note, NoteCode

_OURS = (http.HOST, "::1", "0.0.0.0", "::", "::ffff:127.0.0.1")
"""The addresses of listeners that loopback reaches."""


class RunningServer(Server):
    """A server that was started by somebody else, and goes on; its processes are found by its port."""

    def __init__(self, url: str, model: str | None) -> None:
        """Ask the server at ``url`` for its models.

        Raises ProcessLost where none answers, Unsupported where it is locked or has none of that name.
        """
        key = os.environ.get(KEY, "")
        try:
            known = http.models_of(Endpoint(url, "", key=key))
        except Unsupported as error:
            is_locked = isinstance(error.__cause__, HTTPError) and error.__cause__.code in (401, 403)
            way = f"it asks for a key: {KEY}=..." if is_locked else "start the server, or give its address"
            kind = Unsupported if is_locked else ProcessLost  # it may be starting again
            raise kind(f"runtime.url: {error}; {way}") from error
        if not known or (model is not None and model not in known):
            raise Unsupported(f"runtime.model: {url} has {', '.join(known) or 'no model'}, got {model}")
        self._endpoint = Endpoint(url, model or known[0], key=key)
        self.pids = listening(urlsplit(url).port or 0)
        for pid in self.pids:
            helpers.count(pid)
        weakref.finalize(self, _forget, tuple(self.pids))
        self._resting = self._total("VmRSS")

    @property
    @override
    def endpoint(self) -> Endpoint:
        return self._endpoint

    @property
    @override
    def resting(self) -> int:
        return self._resting

    @property
    @override
    def is_running(self) -> bool:
        return not self.pids or psutil.pid_exists(self.pids[0])

    @override
    def begin_peak(self) -> None:
        for pid in self.pids:
            with suppress(OSError):  # of another user
                Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")

    @override
    def peak(self) -> int:
        return self._total("VmHWM")

    def _total(self, name: str) -> int:
        if not self.is_running:
            raise ProcessLost(f"the server at {self._endpoint.url} ended, or was started again")
        total = 0
        for pid in self.pids:
            with suppress(OSError):
                total += helpers.sizes(pid).get(name, 0)
        return total


def _forget(pids: tuple[int, ...]) -> None:
    for pid in pids:
        helpers.forget(pid)


def listening(port: int) -> list[int]:
    """Return the process that listens on ``port`` and those that it started; none where that may not be seen."""
    try:
        found = [each.pid for each in psutil.net_connections("tcp") if each.laddr and each.laddr.port == port
                 and each.laddr.ip in _OURS and each.status == psutil.CONN_LISTEN and each.pid]  # fmt: skip
        return pids_of(found[0]) if found else []
    except psutil.Error:
        return []


@dataclass(eq=False)
class ServedElsewhere(TorchRunner, Serves):
    """A model in torch, whose load goes to the server at ``url``; ``name``: that of the model there."""

    url: str
    name: str | None

    @cached_property
    def _server(self) -> RunningServer:
        return RunningServer(self.url, self.name)

    @override
    def server(self, capacity: Capacity) -> Server:
        if not self._server.is_running:
            del self._server  # it is looked up once more
        return self._server

    @property
    @override
    def notes(self) -> Sequence[Note]:
        if self._server.pids:
            return super().notes
        text = f"the processes of {self.url} are not seen: peak memory is that of the weights in 16 bits"
        return [*super().notes, Note(NoteCode.OTHER, text)]

    @override
    def memory(self, workload: Workload, device: Device) -> Memory:
        if isinstance(workload, Loading):
            return memory_under_load(self, workload)
        return super().memory(workload, device)
