"""A server as a process of ours: what it uses counts as ours, and it ends with this process whatever happens."""

from __future__ import annotations

import subprocess
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from typing_extensions import override

from objectives.devices import helpers
from objectives.errors import Unsupported
from objectives.protocols.serving import Endpoint, Server
from objectives.runtime.engines import probe_process

_SAID = 300
"""Characters of a server's last words that are shown."""


class ProcessServer(Server):
    """A server in the session of ``process``; ``skipped``: whether that process itself is no part of the server.

    ``before``: resident bytes that its process had before it opened the model. ``folder``: goes with it.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        endpoint: Endpoint,
        folder: TemporaryDirectory[str],
        before: Mapping[str, int] | None = None,
        skipped: bool = False,
    ) -> None:
        self._process, self._endpoint, self._folder = process, endpoint, folder
        self._before = (before or {}).get("VmRSS", 0)
        self._pids = pids_of(process.pid)[1 if skipped else 0 :]
        for pid in self._pids:
            helpers.count(pid)
        self._end = weakref.finalize(self, end, process, tuple(self._pids), folder)
        self._resting = self._total("VmRSS")

    @property
    @override
    def endpoint(self) -> Endpoint:
        return self._endpoint

    @property
    @override
    def resting(self) -> int:
        return self._resting

    @override
    def begin_peak(self) -> None:
        for pid in self._pids:
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")
            except OSError as error:
                raise self._lost() from error

    @override
    def peak(self) -> int:
        return self._total("VmHWM")

    def _total(self, name: str) -> int:
        """Return a size of all its processes together, less what the first one began with."""
        try:
            return sum(helpers.sizes(pid)[name] for pid in self._pids) - self._before
        except (OSError, KeyError) as error:
            raise self._lost() from error

    def _lost(self) -> Unsupported:
        return Unsupported(f"the server ended: {probe_process.how(self._process)}; {said(Path(self._folder.name))}")

    def close(self) -> None:
        """End the server now."""
        self._end()


LOG = "server.log"
"""The file in a server's folder that takes what it prints."""


def end(process: subprocess.Popen[bytes], pids: tuple[int, ...], folder: TemporaryDirectory[str]) -> None:
    """End a server's whole session, and remove its folder."""
    for pid in pids:
        helpers.forget(pid)
    probe_process.end(process)
    folder.cleanup()


def said(folder: Path) -> str:
    """Return the last words of the server that prints into ``folder``, in a line."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    told = [line.strip() for line in lines if "error" in line.lower() or "failed" in line.lower()] or lines
    return told[-1][-_SAID:] if told else ""


def pids_of(pid: int) -> list[int]:
    """Return a process and all that it started, itself first."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def require_ready(
    process: subprocess.Popen[bytes], folder: Path, is_ready: Callable[[], bool], limit: float, wait: float = 0.1
) -> None:
    """Wait until ``is_ready``. Raises Unsupported where the process ends first, or after ``limit`` seconds."""
    from time import perf_counter, sleep

    began = perf_counter()
    while not is_ready():
        if process.poll() is not None:
            raise Unsupported(f"the server did not start: {probe_process.how(process)}; {said(folder)}")
        if perf_counter() - began > limit:
            raise Unsupported(f"the server was not ready after {limit:.0f} s; {said(folder)}")
        sleep(wait)
