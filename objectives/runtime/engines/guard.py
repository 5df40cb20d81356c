"""Opens an engine of a new kind in a child process first: an engine that crashes is then a reason, and does not end
the study.

Engines are compilers and hand-written kernels: nobody knows what they do with a new shape, thread count or CPU before
it was tried. So before an engine of a new kind is opened where a study measures, it is opened and run once elsewhere.
A kind is everything that decides whether an engine runs: the runtime with its settings and versions, the shapes of the
model, the threads and the instruction sets. The outcome is kept with the results of the machine, so each kind is tried
once; another version, CPU or setting is another kind. Only outcomes that will repeat are kept: that the engine runs, or
which fault of its own ended it. Conversions are not tried: they run once, where the model is, and a conversion that
ends the worker is that trial's failure.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from objectives.content_hash import Indescribable, code, digest
from objectives.errors import Unsupported
from objectives.runtime.engines import probe_process
from objectives.runtime.engines.folder import Generating, disk_bytes, open_engine, read_facts
from objectives.runtime.engines.masks import causal
from objectives.runtime.engines.probe_process import Ended
from objectives.settings import class_path
from objectives.types import ENCODERS

if TYPE_CHECKING:
    from objectives.cache import Cache
    from objectives.protocols.candidate import Runtime
    from objectives.runtime.engines.folder import DecoderEngine, EncoderDecoderEngine, EncoderEngine, Facts

PATIENCE = 60.0
"""Seconds that opening an engine and running it once may take, and one more for every :data:`BYTES_PER_SECOND`."""
BYTES_PER_SECOND = 1 << 25
ENCODED, PROMPT = 16, 4
"""Tokens of the one text that an encoder reads, and of the prompt that a decoder continues."""
RAN = "ran"
STAGE = "guard"


class Guard:
    """Admits the engines whose kind opens and runs in a child process.

    ``cache``: keeps the outcomes of trials; where it is None, they are kept for this process only.
    """

    def __init__(self, cache: Cache | None) -> None:
        self._cache = cache
        self._ended: dict[str, Ended] = {}

    def admit(self, folder: Path, runtime: Runtime, threads: int) -> None:
        """Raise Unsupported or MemoryError unless ``runtime``'s engine of ``folder`` opens and runs."""
        kind = _kind(read_facts(folder), runtime, threads)
        ended = self._known(kind) or self._tried(kind, folder, runtime, threads)
        if ended.out_of_memory:
            raise MemoryError(f"{runtime.name} could not open the model: {ended.how}")
        if not _ran(ended):
            raise Unsupported(_refusal(ended, runtime, threads))

    def _known(self, kind: str | None) -> Ended | None:
        if kind is None or kind in self._ended or self._cache is None:
            return None if kind is None else self._ended.get(kind)
        kept = self._cache.get(STAGE, kind)
        return None if kept is None else Ended(**kept)

    def _tried(self, kind: str | None, folder: Path, runtime: Runtime, threads: int) -> Ended:
        limit = PATIENCE + disk_bytes(folder) / BYTES_PER_SECOND
        ended = probe_process.run(__name__, [str(folder), str(threads), class_path(runtime)], limit)
        if kind is not None and not ended.out_of_memory:
            self._ended[kind] = ended
            if self._cache is not None and (_ran(ended) or ended.faulted):  # only these repeat
                self._cache.put(STAGE, kind, asdict(ended))
        return ended


def _kind(facts: Facts, runtime: Runtime, threads: int) -> str | None:
    """Return a hash of all that decides whether an engine runs; None for a runtime that cannot be described."""
    shapes = [facts.options, facts.head, facts.vocabulary, facts.caches, facts.stored, facts.others]
    try:
        return digest(code(), runtime, runtime.versions(), shapes, threads, *_cpus())
    except Indescribable:
        return None


@cache
def _instructions() -> str:
    """Return the instruction sets of the CPU, as Linux names them; elsewhere the CPU's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
    return f"{platform.machine()} {flags}"


def _cpus() -> tuple[str, int]:
    """Return the instruction sets, and how many CPUs this process may use."""
    return _instructions(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ran(ended: Ended) -> bool:
    """Return whether the engine opened and answered; one that ended its process with code 0 before did not."""
    return ended.answer.rstrip().endswith(RAN)


def _refusal(ended: Ended, runtime: Runtime, threads: int) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in runtime.versions().items()) or runtime.name
    how = ended.how if ended.code != 0 else "it ended its process without an answer"
    return (
        f"{versions} does not open and run this model with {threads} thread{'s' * (threads != 1)} on this CPU: "
        f"{how}, in a process of its own; another runtime, version or device.threads may"
    )


# Everything below runs in the child process.


def _main(folder: Path, threads: int, runtime: str) -> None:
    engine, facts = open_engine(folder, threads, (runtime,))
    if facts.head in ENCODERS:
        cast("EncoderEngine", engine).encode(_ids(ENCODED, facts.vocabulary), None)
    elif isinstance(engine, Generating):
        engine.generate(_ids(PROMPT, facts.vocabulary), np.zeros((1, 2), np.int64), None, None)
    elif facts.head == "causal_lm":
        decoder = cast("DecoderEngine", engine)
        _write_two(decoder, decoder.start(1), facts.vocabulary)
    elif facts.head == "seq2seq":
        translator = cast("EncoderDecoderEngine", engine)
        sources = translator.read(_ids(ENCODED, facts.vocabulary), None)
        _write_two(translator, translator.begin(sources), facts.vocabulary)
    print(RAN, flush=True)
    os._exit(0)  # skips the engine's own shutdown, which is not tested


def _write_two(engine: DecoderEngine | EncoderDecoderEngine, state: Any, vocabulary: int) -> None:
    """Run a pass over a prompt, and one over a token more."""
    for tokens, total in ((PROMPT, PROMPT), (1, PROMPT + 1)):
        places = np.arange(total - tokens, total)[None]
        inputs = (_ids(tokens, vocabulary), causal(1, tokens, total, None), places, np.array([tokens - 1]))
        _, state = engine.run(*inputs, state)


def _ids(tokens: int, vocabulary: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.arange(tokens, dtype=np.int64)[None] % vocabulary


if __name__ == "__main__":
    probe_process.begin()
    _main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
