"""A server as a process of ours: what it uses counts as ours, and it ends with this process whatever happens."""

from __future__ import annotations

import os
import subprocess
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil
from typing_extensions import override

from objectives.devices import helpers
from objectives.errors import ProcessLost
from objectives.protocols.serving import Endpoint, Server
from objectives.runtime.engines import probe_process

_SAID = 300
"""Characters of a server's last words that are shown."""


class ProcessServer(Server):
    """A server in the session of ``process``; ``skipped``: whether that process itself is no part of the server.

    ``log``: the file that takes what it prints. ``before``: resident bytes that its process had before it opened the
    model.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        endpoint: Endpoint,
        log: IO[bytes],
        before: Mapping[str, int] | None = None,
        skipped: bool = False,
    ) -> None:
        self._process, self._endpoint, self._log = process, endpoint, log
        self._before = (before or {}).get("VmRSS", 0)
        self._pids = pids_of(process.pid)[1 if skipped else 0 :]
        for pid in self._pids:
            helpers.count(pid)
        self._end = weakref.finalize(self, end, process, tuple(self._pids), log)
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
        return self._process.poll() is None and psutil.pid_exists(self._pids[0])

    @override
    def begin_peak(self) -> None:
        for pid in self._running():
            with suppress(OSError):  # it ended meanwhile
                Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")

    @override
    def peak(self) -> int:
        return self._total("VmHWM")

    def _total(self, name: str) -> int:
        """Return a size of all its processes together, less what the first one began with."""
        total = -self._before
        for pid in self._running():
            with suppress(OSError, KeyError):
                total += helpers.sizes(pid)[name]
        return max(0, total)

    def _running(self) -> list[int]:
        """Return the processes of the server that still run; one that it needed for a moment may have ended.

        Raises ProcessLost where the server itself did.
        """
        if not self.is_running:
            raise self._lost()
        return [pid for pid in self._pids if psutil.pid_exists(pid)]

    def _lost(self) -> ProcessLost:
        return ProcessLost(f"the server ended: {probe_process.how(self._process)}; {said(self._log)}")

    def close(self) -> None:
        """End the server now."""
        self._end()


def end(process: subprocess.Popen[bytes], pids: tuple[int, ...], log: IO[bytes]) -> None:
    """End a server's whole session, and close its log, which has no name and is gone then."""
    for pid in pids:
        helpers.forget(pid)
    probe_process.end(process)
    log.close()


def said(log: IO[bytes]) -> str:
    """Return the last words of the server that prints into ``log``, in a line."""
    size = os.fstat(log.fileno()).st_size
    lines = os.pread(log.fileno(), size, 0).decode(errors="replace").strip().splitlines()  # its own place stays
    told = [line.strip() for line in lines if "error" in line.lower() or "failed" in line.lower()] or lines
    return told[-1][-_SAID:] if told else ""


def pids_of(pid: int) -> list[int]:
    """Return a process and all that it started, itself first."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def require_ready(
    process: subprocess.Popen[bytes], log: IO[bytes], is_ready: Callable[[], bool], limit: float, wait: float = 0.1
) -> None:
    """Wait until ``is_ready``. Raises ProcessLost where the process ends first, or after ``limit`` seconds."""
    from time import perf_counter, sleep

    began = perf_counter()
    while True:
        if process.poll() is not None:  # before anybody is asked: another server may have its port
            raise ProcessLost(f"the server did not start: {probe_process.how(process)}; {said(log)}")
        if is_ready():
            return
        if perf_counter() - began > limit:
            raise ProcessLost(f"the server was not ready after {limit:.0f} s; {said(log)}")
        sleep(wait)
