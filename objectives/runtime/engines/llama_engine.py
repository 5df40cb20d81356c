"""A decoder that llama.cpp runs in a child process.

In one process with torch and other engines, its tiles of AMX ended that process.
"""

from __future__ import annotations

import subprocess
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from objectives.devices import helpers
from objectives.errors import ProcessLost, Unsupported
from objectives.runtime.engines import probe_process
from objectives.runtime.engines.text_decoder import TextDecoder

if TYPE_CHECKING:
    from objectives.runtime.engines.folder import Floats, Ids
    from objectives.runtime.engines.text_decoder import Text, Tokens

_CHILD = "objectives.runtime.engines.llama_child"
_PATIENCE = 10.0
"""Seconds that a child has to end when it is no longer wanted."""


class LlamaDecoder(TextDecoder):
    """A GGUF file, open in a child process that ends with this object."""

    def __init__(self, file: Path, place: str, threads: int, kv_bits: int, repack: bool) -> None:
        """Open ``file`` with the library at ``place``. Raises Unsupported, MemoryError."""
        self._connection, theirs = Pipe()
        numbers = [str(int(number)) for number in (threads, kv_bits, repack)]
        with theirs:
            self._process = probe_process.start(
                _CHILD, [str(theirs.fileno()), place, *numbers], pass_fds=(theirs.fileno(),)
            )
        self._close = weakref.finalize(self, _end, self._connection, self._process)
        self._ask("load")
        helpers.count(self._process.pid)
        self._ask("open", str(file))

    @override
    def logits_at(self, texts: Sequence[Text], wanted: Sequence[Ids]) -> Floats:
        answer: Floats = self._ask("logits", texts, wanted)[1]
        return answer

    @override
    def continued(self, texts: Sequence[Text], count: int, end_phase: Callable[[str], object]) -> Tokens:
        self._send("generate", texts, count)
        while (answer := self._answer())[0] == "phase":
            end_phase(answer[1])
        tokens: Tokens = answer[1]
        return tokens

    def _ask(self, *request: Any) -> tuple[Any, ...]:
        self._send(*request)
        return self._answer()

    def _send(self, *request: Any) -> None:
        try:
            self._connection.send(request)
        except OSError as error:
            raise self._lost() from error

    def _answer(self) -> tuple[Any, ...]:
        """Return the child's next answer. Raises Unsupported, MemoryError, ProcessLost."""
        try:
            answer: tuple[Any, ...] = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if answer[0] == "failed":
            raise {"MemoryError": MemoryError}.get(answer[1], Unsupported)(answer[2])
        return answer

    def _lost(self) -> ProcessLost:
        """Return the error that tells how the child ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        return ProcessLost(f"llama.cpp ended its process: {probe_process.how(self._process)}")


def _end(connection: Connection, process: subprocess.Popen[bytes]) -> None:
    helpers.forget(process.pid)
    connection.close()
    probe_process.end(process)
