"""An engine in another interpreter, started as a process of its own and asked over a socket.

The script lies in :mod:`objectives.runtime.foreign`. It sees nothing of ours: not our packages, not our environment's
Python path. What it prints is kept, so that an error can be told by its last lines.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from typing_extensions import override

from objectives.assets.environment import variables
from objectives.devices import helpers
from objectives.errors import ProcessLost, Unsupported
from objectives.runtime import foreign
from objectives.runtime.engines import probe_process
from objectives.runtime.engines.folder import Weighed
from objectives.runtime.engines.text_decoder import TextDecoder
from objectives.runtime.foreign.json_lines import KINDS, Channel, Message

if TYPE_CHECKING:
    from objectives.runtime.engines.folder import Floats, Ids
    from objectives.runtime.engines.text_decoder import Text, Tokens

_SCRIPTS = Path(foreign.__file__).parent
_PATIENCE = 10.0
"""Seconds that a child has to end when it is no longer wanted."""
_TOLD = 3
"""Number of the last lines of its output that an error quotes."""


class ForeignDecoder(TextDecoder, Weighed):
    """A checkpoint that an engine in another interpreter has open; the process ends with this object."""

    def __init__(
        self, script: str, python: Path, folder: Path, flags: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        """Let ``python`` run ``script`` and open ``folder``.

        ``flags``: arguments of the engine; ``environment``: variables that are set besides. Raises Unsupported,
        MemoryError.
        """
        ours, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        with theirs:
            self._process = subprocess.Popen(
                [str(python), "-P", "-s", str(_SCRIPTS / script), str(theirs.fileno()), str(os.getpid())],
                env={**variables(), "PYTHONPATH": str(_SCRIPTS), **environment},
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )
        self._channel = Channel(ours)
        self._close = weakref.finalize(self, _end, self._channel, self._process, self._output)
        helpers.count(self._process.pid)
        self.facts = self._ask({"do": "open", "folder": str(folder), "flags": dict(flags)}).fields
        """What the engine said when it had opened the folder."""

    @override
    def logits_at(self, texts: Sequence[Text], wanted: Sequence[Ids]) -> Floats:
        places = [each.tolist() for each in wanted]
        logits: Floats = self._ask({"do": "logits", "texts": _plain(texts), "wanted": places}).arrays[0]
        return logits

    @override
    def continued(self, texts: Sequence[Text], count: int, end_phase: Callable[[str], object]) -> Tokens:
        self._send({"do": "generate", "texts": _plain(texts), "count": count})
        while "phase" in (answer := self._answer()).fields:
            end_phase(answer.fields["phase"])
        tokens: Tokens = answer.fields["tokens"]
        return tokens

    @override
    def weigh(self) -> tuple[int, int]:
        found, resting = self._ask({"do": "weigh"}).fields, int(self.facts["weights"])
        return resting, resting + int(found["cache"]) + int(found["growth"])

    def _ask(self, request: Mapping[str, Any]) -> Message:
        self._send(request)
        return self._answer()

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            self._channel.send(request)
        except OSError as error:
            raise self._lost() from error

    def _answer(self) -> Message:
        """Return the engine's next answer. Raises Unsupported, MemoryError, ProcessLost."""
        try:
            answer = self._channel.receive()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        failed = answer.fields.get("failed")
        if failed is not None:
            kind = MemoryError if KINDS[failed] is MemoryError else Unsupported
            raise kind(str(answer.fields["text"]).splitlines()[0])
        return answer

    def _lost(self) -> ProcessLost:
        """Return the error that tells how the process ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        self._output.seek(0)
        told = [line for line in self._output.read().decode(errors="replace").splitlines() if line.strip()][-_TOLD:]
        return ProcessLost(f"the engine ended its process: {probe_process.how(self._process)}; {' / '.join(told)}")


def _plain(texts: Sequence[Text]) -> list[list[int]]:
    return [text.tolist() for text in texts]


def _end(channel: Channel, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    helpers.forget(process.pid)
    channel.close()
    probe_process.end(process)
    output.close()
