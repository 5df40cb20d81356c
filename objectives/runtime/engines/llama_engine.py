"""A decoder that llama.cpp runs in a child process: beside torch and other engines its tiles of AMX ended the process.

The cache of a :class:`DecoderEngine` is here the texts so far. The child keeps what it read last, and reads again only
what differs: so any cache can be continued, in any order of rows.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from typing_extensions import override

from objectives.devices import helpers
from objectives.errors import Unsupported
from objectives.runtime.engines import probe_process
from objectives.runtime.engines.folder import DecoderEngine, Floats, Generating, Ids, Selecting
from objectives.types import Phase

if TYPE_CHECKING:
    import subprocess

    from numpy.typing import NDArray

    from objectives.protocols.running import EndPhase

_CHILD = "objectives.runtime.engines.llama_child"
_PATIENCE = 10.0
"""Seconds that a child has to end when it is no longer wanted."""

if TYPE_CHECKING:
    Texts = tuple[NDArray[np.int32], ...]


class LlamaDecoder(DecoderEngine, Generating, Selecting):
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
    def start(self, rows: int) -> Texts:
        return tuple(np.zeros(0, np.int32) for _ in range(rows))

    @override
    def select(self, cache: Texts, rows: Sequence[int]) -> Texts:
        return tuple(cache[row] for row in rows)

    @override
    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: Texts) -> tuple[Floats, Texts]:
        """Return the logits and the texts so far; what comes before place 0 is padding, and is dropped."""
        texts = tuple(
            np.concatenate([seen, row])[-(int(last) + 1) :].astype(np.int32)
            for seen, row, last in zip(cache, ids, places[:, -1])
        )
        at = [np.maximum(len(text) - ids.shape[1] + wanted, 0) for text in texts]
        unique = [np.unique(each) for each in at]
        answer: Floats = self._ask("logits", texts, unique)[1]
        parts = np.split(answer, np.cumsum([len(each) for each in unique])[:-1])
        logits = [part[np.searchsorted(each, asked)] for part, each, asked in zip(parts, unique, at)]
        return np.stack(logits), texts

    @override
    def generate(self, ids: Ids, out: Ids, mask: NDArray[np.bool_] | None, end_phase: EndPhase | None) -> None:
        texts = [row if mask is None else row[mask[index]] for index, row in enumerate(ids)]
        self._send("generate", [text.astype(np.int32) for text in texts], out.shape[1])
        while (answer := self._answer())[0] == "phase":
            if end_phase is not None:
                end_phase(cast("Phase", answer[1]), None)
        out[:] = answer[1]

    def _ask(self, *request: Any) -> tuple[Any, ...]:
        self._send(*request)
        return self._answer()

    def _send(self, *request: Any) -> None:
        try:
            self._connection.send(request)
        except OSError as error:
            raise self._lost() from error

    def _answer(self) -> tuple[Any, ...]:
        """Return the child's next answer. Raises Unsupported, MemoryError."""
        try:
            answer: tuple[Any, ...] = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if answer[0] == "failed":
            raise {"MemoryError": MemoryError}.get(answer[1], Unsupported)(answer[2])
        return answer

    def _lost(self) -> Unsupported:
        """Return the error that tells how the child ended."""
        self._process.wait(_PATIENCE)
        return Unsupported(f"llama.cpp ended its process: {probe_process.how(self._process)}")


def _end(connection: Connection, process: subprocess.Popen[bytes]) -> None:
    helpers.forget(process.pid)
    connection.close()
    probe_process.end(process)
