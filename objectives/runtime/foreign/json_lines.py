"""The protocol with an engine in another interpreter: lines of JSON over a socket, arrays behind them as they are.

A message is an object on one line. Its field ``arrays`` lists (type, shape) of the arrays whose bytes follow the line,
in order. A request has a field ``do``; answers have one of ``done`` (the last one to a request), ``phase`` (a pass of a
generation ended) or ``failed`` (which kind of error, and ``text``). Requests, with what is answered:

- ``open``: ``folder`` and ``flags`` of the engine; ``weights``: bytes of all of them, as they lie in memory.
- ``logits``: ``texts``, token ids of every row; ``wanted``, places of every row. One array [sum of wanted, vocabulary].
- ``generate``: ``texts`` and ``count``; ``phase`` for every pass, then ``tokens`` of every row.
- ``weigh``: what ran since the last such request; ``cache``, bytes of the keys and values of its most tokens at once;
  ``growth``, the bytes by which the process grew meanwhile.

This file runs in both interpreters, and needs numpy alone. Another engine is another script that calls :func:`serve`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Ids = Sequence[int]
_PR_SET_PDEATHSIG = 1
KINDS: Mapping[str, type[Exception]] = {"memory": MemoryError, "other": RuntimeError}
"""The kinds of error that are told apart."""


@dataclass(frozen=True)
class Message:
    """One message: its fields, and the arrays that follow it."""

    fields: Mapping[str, Any]
    arrays: Sequence[Array] = field(default_factory=tuple)


class Channel:
    """One end of the socket between the two processes."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._reader: BinaryIO = end.makefile("rb")

    def send(self, fields: Mapping[str, Any], arrays: Sequence[Array] = ()) -> None:
        """Send a message. Raises OSError where the other end is gone."""
        described = [(array.dtype.str, array.shape) for array in arrays]
        line = json.dumps({**fields, "arrays": described} if arrays else fields)
        self._socket.sendall(line.encode() + b"\n")
        for array in arrays:
            self._socket.sendall(np.ascontiguousarray(array).data.cast("B"))

    def receive(self) -> Message:
        """Wait for a message. Raises EOFError where the other end is gone."""
        line = self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        fields = json.loads(line)
        return Message(fields, [self._array(np.dtype(kind), shape) for kind, shape in fields.pop("arrays", ())])

    def _array(self, kind: np.dtype[Any], shape: Sequence[int]) -> Array:
        array = np.empty(shape, kind)
        view = array.reshape(-1).view(np.uint8).data
        while view:
            count = self._reader.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            view = view[count:]
        return array

    def close(self) -> None:
        """Close this end."""
        self._reader.close()
        self._socket.close()


class Engine(Protocol):
    """The engine that a script opens; the module's docstring says what its methods answer."""

    def __init__(self, folder: str, flags: Mapping[str, Any]) -> None:
        """Open ``folder``."""

    def facts(self) -> Mapping[str, Any]:
        """Return the answer to ``open``."""

    def logits(self, texts: Sequence[Ids], wanted: Sequence[Ids]) -> Array:
        """Return the logits [sum of wanted, vocabulary] at places of ``texts``."""

    def generate(self, texts: Sequence[Ids], count: int, end_phase: Callable[[str], object]) -> Sequence[Ids]:
        """Return the ``count`` likeliest tokens after every text; ``end_phase`` is told the name of every pass."""

    def weigh(self) -> Mapping[str, Any]:
        """Return the answer to ``weigh``."""


def serve(kind: Callable[[str, Mapping[str, Any]], Engine]) -> None:
    """Answer what comes over the socket whose number stands in ``sys.argv``, until it is closed.

    This process ends with the one that started it.
    """
    descriptor, parent = map(int, sys.argv[1:3])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    channel = Channel(socket.socket(fileno=descriptor))
    engine: Engine | None = None
    while True:
        try:
            request = channel.receive().fields
        except (EOFError, OSError):
            os._exit(0)  # skips the engine's own shutdown, which nothing waits for
        try:
            if request["do"] == "open":
                engine = kind(request["folder"], request["flags"])
                channel.send({"done": True, **engine.facts()})
            elif engine is not None:
                _answer(channel, engine, request)
        except Exception as error:
            name = "memory" if isinstance(error, MemoryError) or "out of memory" in str(error).lower() else "other"
            channel.send({"failed": name, "text": f"{type(error).__name__}: {error}"})


def _answer(channel: Channel, engine: Engine, request: Mapping[str, Any]) -> None:
    if request["do"] == "logits":
        channel.send({"done": True}, [engine.logits(request["texts"], request["wanted"])])
    elif request["do"] == "generate":
        told = engine.generate(request["texts"], request["count"], lambda phase: channel.send({"phase": phase}))
        channel.send({"done": True, "tokens": [list(map(int, row)) for row in told]})
    else:
        channel.send({"done": True, **engine.weigh()})
