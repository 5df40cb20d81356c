"""Runs a module in a child process: an engine's code may divide by zero, loop for ever or take all memory.

Whatever the child does, the caller gets an answer: what the child wrote, or how it ended. The child ends with the
process that started it, takes along the processes that it started itself, and leaves no core dump behind.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from objectives.devices.parent import end_with

FAULTS = frozenset({"SIGFPE", "SIGSEGV", "SIGILL", "SIGBUS", "SIGABRT", "SIGTRAP", "SIGSYS"})
"""Signals by which a process ends for what its own code did."""
_PARENT = "PARETUNE_PARENT"
"""The variable that tells the child which process started it."""


@dataclass(frozen=True)
class Ended:
    """The end of a child process.

    ``code``: the exit code, None where the process was still running at its limit; ``signal``: the name of the one that
    ended it; ``answer``: what it printed, empty unless it exited with 0; ``said``: the last line of its errors;
    ``limit``: seconds that it had.
    """

    code: int | None
    signal: str | None
    answer: str
    said: str
    limit: float

    @property
    def faulted(self) -> bool:
        """Return whether a fault of its own code ended it, which will happen again."""
        return self.signal in FAULTS

    @property
    def out_of_memory(self) -> bool:
        """Return whether its errors say that memory ran out."""
        return "MemoryError" in self.said or "out of memory" in self.said.lower()

    @property
    def how(self) -> str:
        """Return how it ended, in words for the end of a sentence."""
        if self.code is None:
            return f"still running after {self.limit:.0f} s"
        if self.signal is not None:
            return f"killed by {self.signal}"
        return self.said or f"exit code {self.code}"


def run(module: str, arguments: Sequence[str], limit: float, given: bytes = b"") -> Ended:
    """Run ``python -m module arguments`` with ``given`` as its input, for at most ``limit`` seconds.

    The module calls :func:`begin` before anything else.
    """
    process = start(module, arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = b"", b""
    try:
        out, errors = process.communicate(given, timeout=limit)
    except subprocess.TimeoutExpired:
        if process.poll() is None:
            return Ended(None, None, "", "", limit)
    finally:
        end(process)
    code = process.returncode
    answer = "" if code else out.decode(errors="replace")
    lines = errors.decode(errors="replace").strip().splitlines()
    return Ended(code, _name(-code) if code < 0 else None, answer, lines[-1] if lines else "", limit)


def start(module: str, arguments: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start ``python -m module arguments`` in a session of its own; ``streams``: arguments of ``Popen`` about files.

    The module calls :func:`begin` before anything else. Nothing is read or written unless ``streams`` says so.
    """
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "TOKENIZERS_PARALLELISM": "false", _PARENT: str(os.getpid())}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], env=environment, start_new_session=True, **{**silent, **streams}
    )


def how(process: subprocess.Popen[bytes]) -> str:
    """Return how ``process`` ended, in words for the end of a sentence."""
    code = process.poll()
    if code is None:
        return "it answers no more"
    return f"killed by {_name(-code)}" if code < 0 else f"exit code {code}"


def begin() -> None:
    """Make this child process end with the one that started it, and leave no core dump behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    end_with(int(os.environ[_PARENT]))


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and what it started, and collect it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
    process.wait()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
