"""llama.cpp's own server, that of the wheel ``xllamacpp``, in a child process.

It answers in texts, so its file needs a vocabulary, which the measured file does not have: it serves a copy with the
tokenizer's pieces put in. Weights, codes and kernels are the same.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from secrets import token_urlsafe
from select import select
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

from objectives.devices import helpers
from objectives.errors import ProcessLost
from objectives.protocols.serving import Capacity, Endpoint
from objectives.runtime.engines import probe_process
from objectives.runtime.servers.gguf_pieces import write_with_pieces
from objectives.runtime.servers.server import ProcessServer, end, said

PATIENCE = 600.0
"""Seconds that it may take to be ready."""
_CHILD = "objectives.runtime.servers.llama_server_child"
_FILE = "served.gguf"
_KEEP_NOTHING = (("cache_prompt", False),)
"""Fields of every request: no prefix is answered from what a slot read before."""


def start(
    file: Path, tokenizer: Any, vocabulary: int, threads: int, capacity: Capacity, cache_bits: int, repack: bool
) -> ProcessServer:
    """Start the server of ``file``. Raises ProcessLost, MemoryError; Unsupported where its tokenizer has no pieces.

    ``vocabulary``: number of token ids; ``cache_bits``: of keys and values; ``repack``: lay out weights anew.
    """
    log = TemporaryFile()  # noqa: SIM115  closed with the server
    with TemporaryDirectory(prefix="paretune-llama-") as place:
        served = Path(place) / _FILE
        write_with_pieces(file, served, tokenizer, vocabulary)
        settings = {
            "file": str(served), "slots": capacity.slots, "tokens": capacity.tokens, "threads": threads,
            "cache_bits": cache_bits, "repack": repack,
        }  # fmt: skip
        process = probe_process.start(
            _CHILD, [json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        try:
            _line(process, log)  # what it needs is imported
            before = helpers.sizes(process.pid)
            key = token_urlsafe()
            _give(process, key)
            url = _line(process, log)  # the file is read by now, not mapped
            return ProcessServer(process, Endpoint(url, _FILE, _KEEP_NOTHING, key), log, before)
        except BaseException:
            end(process, (), log)
            raise


def _give(process: subprocess.Popen[bytes], key: str) -> None:
    stream: IO[bytes] = process.stdin  # type: ignore[assignment]
    with suppress(BrokenPipeError):  # it ended: its next line tells how
        stream.write(key.encode() + b"\n")
        stream.flush()


def _line(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """Return the child's next line. Raises ProcessLost, MemoryError."""
    stream: IO[bytes] = process.stdout  # type: ignore[assignment]
    if not select([stream], [], [], PATIENCE)[0]:
        raise ProcessLost(f"llama.cpp's server was not ready after {PATIENCE:.0f} s; {said(log)}")
    word, _, rest = stream.readline().decode().strip().partition(" ")
    if word == "ok":
        return rest
    with suppress(subprocess.TimeoutExpired):
        process.wait(10.0)
    told = said(log)
    if "failed to allocate" in told or "bad_alloc" in told:
        raise MemoryError(f"llama.cpp's server: {told}")
    raise ProcessLost(f"llama.cpp's server did not start: {rest or probe_process.how(process)}; {told}")
