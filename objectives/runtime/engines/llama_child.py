"""Runs llama.cpp for another process, in the child process of :mod:`.llama_engine`.

Requests and answers are tuples that begin with a word. ``("open", file)`` is answered by ``("opened",)``,
``("logits", texts, wanted)`` by ``("logits", floats)``, ``("generate", texts, count)`` by ``("phase", name)`` after
every pass and ``("tokens", ids)`` at the end; what fails is answered by ``("failed", kind, text)``.
"""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from objectives.errors import Unsupported
from objectives.runtime.engines import llama_library, probe_process
from objectives.runtime.engines.llama_model import Model, Settings


def serve(connection: Connection, place: str, settings: Settings) -> None:
    """Answer what comes over ``connection``, until it is closed."""
    library: Any = None
    model: Model | None = None
    while True:
        try:
            request: tuple[Any, ...] = connection.recv()
        except (EOFError, OSError):  # the process that asked is gone, or wants no more
            return
        try:
            if request[0] == "load":
                library = llama_library.loaded(place)
                connection.send(("loaded",))
            elif request[0] == "open":
                model = Model(library, Path(request[1]), settings)
                connection.send(("opened",))
            elif model is not None and request[0] == "logits":
                connection.send(("logits", model.logits(request[1], request[2])))
            elif model is not None:
                tokens = model.generate(request[1], request[2], lambda phase: connection.send(("phase", phase)))
                connection.send(("tokens", tokens))
        except (Unsupported, MemoryError) as error:
            connection.send(("failed", type(error).__name__, str(error)))


if __name__ == "__main__":
    probe_process.begin()
    _descriptor, _place, *_numbers = sys.argv[1:]
    _threads, _kv_bits, _repack = map(int, _numbers)
    serve(Connection(int(_descriptor)), _place, Settings(_threads, _kv_bits, bool(_repack)))
    os._exit(0)  # skips the library's own shutdown, which nothing waits for
