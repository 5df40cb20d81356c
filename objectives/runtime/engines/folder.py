"""An engine as a folder: its files, and ``engine.json``, which says what opens them. Nothing here needs torch."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from objectives.errors import ModelError, ObjectiveError
from objectives.models.notes import notes_of, stored_notes
from objectives.protocols.candidate import Runtime
from objectives.protocols.encoder_decoder import Opening
from objectives.protocols.running import EndPhase
from objectives.runtime.packages import Packages
from objectives.types import Head, Note

FACTS = "engine.json"
ENGINES = "objectives.runtime."
HALVES = ("reader", "writer")
"""Names of the two graphs of an encoder-decoder: see :mod:`objectives.runtime.engines.seq2seq_graph`."""

_OPTIONS = {"objectives.runtime.llama_cpp.LlamaCpp": {"cache_bits": "kv_bits"}}
"""Settings of engines of earlier versions that are options now, by the path of the runtime's class."""

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Facts:
    """The facts about an engine that stand in its ``engine.json``.

    ``runtime``: path of the class that opens the folder; ``settings``: that class's own; ``options``: what it decided
    when it wrote the files; ``caches``: (heads, width) of every past key and value; ``stored``: bytes of each matrix by
    its module's name; ``others``: bytes of all else; ``block_weights``, ``block_bytes``: number and bytes of the
    weights of the block linears; ``seconds``: how long making the engine took; ``labels``: names of a head's classes;
    ``end_tokens``: what ends a text; ``opening``: how the decoder of an encoder-decoder begins.
    """

    runtime: str
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    head: Head
    vocabulary: int
    caches: Sequence[Sequence[int]]
    stored: Mapping[str, int]
    others: int
    block_weights: int
    block_bytes: int
    seconds: float
    predicted_loss: float | None
    notes: Sequence[Note]
    labels: Sequence[str] = ()
    end_tokens: Sequence[int] = ()
    opening: Opening = field(default_factory=Opening)

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all that the files hold of the model."""
        return sum(self.stored.values()) + self.others


class EncoderEngine(Protocol):
    """Runs an encoder."""

    def encode(self, ids: Ids, mask: NDArray[np.bool_] | None, types: Ids | None = None) -> Floats:
        """Return the answer of ``Runner.encode`` to ``ids`` [rows, tokens]: hidden states, or a head's logits.

        ``mask``: bool [rows, tokens], False where a token does not count; None where all do. ``types`` [rows, tokens]:
        the token types, for heads that read them; None where all are 0.
        """


class DecoderEngine(Protocol):
    """Runs a decoder pass by pass."""

    def start(self, rows: int) -> Any:
        """Return an empty cache."""

    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: Any) -> tuple[Floats, Any]:
        """Return the logits [rows, wanted, vocabulary] and the cache to go on from.

        The arguments have the shapes of :class:`objectives.runtime.engines.graph_export.Decoder`.
        """


class EncoderDecoderEngine(Protocol):
    """Runs an encoder-decoder: its encoder once, its decoder pass by pass."""

    def read(self, ids: Ids, mask: NDArray[np.bool_] | None) -> Any:
        """Return what the decoder needs of the sources ``ids`` [rows, tokens]; ``mask``: as an encoder's."""

    def begin(self, sources: Any) -> Any:
        """Return an empty cache over these sources."""

    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: Any) -> tuple[Floats, Any]:
        """Return what the ``run`` of a decoder does; rows are never padded."""


@runtime_checkable
class Selecting(Protocol):
    """An engine that can take some rows of its cache alone, in any order, and more than once."""

    def select(self, cache: Any, rows: Sequence[int]) -> Any:
        """Return the cache with these rows."""


@runtime_checkable
class Generating(Protocol):
    """A decoder that generates by itself."""

    def generate(self, ids: Ids, out: Ids, mask: NDArray[np.bool_] | None, end_phase: EndPhase | None) -> None:
        """Fill ``out`` [rows, new tokens] as ``Runner.generate`` does, in numpy."""


@runtime_checkable
class Weighed(Protocol):
    """An engine that tells its own memory, since what its process holds says little: it keeps a reserve."""

    def weigh(self) -> tuple[int, int]:
        """Return the bytes at rest, and the most since the last call, those at rest included.

        Keys and values count for the tokens that ran, not for those that there is room for.
        """


Engine = EncoderEngine | DecoderEngine | EncoderDecoderEngine


class Opener(Protocol):
    """A runtime whose folders can be opened again."""

    def open(self, folder: Path, facts: Facts, threads: int) -> Engine:
        """Return the engine of ``folder``; import the packages that it needs."""

    @property
    def packages(self) -> Packages:
        """Return the packages that running and converting need."""


def write_facts(folder: Path, facts: Facts) -> None:
    """Write ``facts`` beside the engine's own files."""
    (folder / FACTS).write_text(
        json.dumps({**asdict(facts), "notes": stored_notes(facts.notes)}, indent=1), encoding="utf-8"
    )


def read_facts(folder: Path) -> Facts:
    """Read the facts about the engine in ``folder``. Raises ModelError."""
    file = folder / FACTS
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        facts["notes"] = notes_of(facts["notes"])
        for name in _OPTIONS.get(facts["runtime"], {}).keys() & facts["settings"].keys():
            bits = facts["settings"].pop(name)
            facts["options"][_OPTIONS[facts["runtime"]][name]] = 32 if facts["options"].get("wide") else bits
        for name in ("labels", "end_tokens"):  # engines of earlier versions have none
            facts.setdefault(name, ())
        facts["opening"] = Opening(**{name: tuple(ids) for name, ids in facts.get("opening", {}).items()})
        return Facts(**{each.name: facts[each.name] for each in fields(Facts)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: no engine is described there: {error}") from error


def runtime_of(facts: Facts, allowed: Sequence[str] = (ENGINES,)) -> Opener:
    """Return the object that opens the folder; ``allowed``: see :func:`made`. Raises ModelError."""
    opener: Opener = made(facts.runtime, facts.settings, f"{FACTS}: runtime", allowed)
    if not all(hasattr(opener, member) for member in ("open", "packages")):
        raise ModelError(f"{FACTS}: runtime: {facts.runtime} opens no folders")
    return opener


def made(path: str, settings: Mapping[str, Any], key: str, allowed: Sequence[str] = (ENGINES,)) -> Any:
    """Return the runtime that a folder names by the ``path`` of its class, with its ``settings``.

    ``allowed``: whole paths, and beginnings that end in a dot. A folder may come from anybody: nothing is called but
    classes that are runtimes and stand in the module that the path names. ``key``: file and setting, for the message.
    Raises ModelError.
    """
    if not any(path.startswith(one) if one.endswith(".") else path == one for one in allowed):
        raise ModelError(
            f"{key} must start with one of {', '.join(allowed)}; got {path!r} (objectives.load(folder, "
            "allow_targets=[...]) admits modules of your own)"
        )
    module, _, name = path.rpartition(".")
    try:
        kind = vars(importlib.import_module(module)).get(name)
        if not isinstance(kind, type) or kind.__module__ != module or not _is_runtime(kind):
            raise ModelError(f"{key}: {path} is no class of runtimes, as {ENGINES}onnxruntime.OnnxRuntime is one")
        return kind(**settings)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ModelError(f"{key}: {path} cannot be made: {error}") from error


def _is_runtime(kind: type) -> bool:
    return all(hasattr(kind, member) for member in vars(Runtime) if not member.startswith("_"))


def open_engine(folder: Path, threads: int, allowed: Sequence[str] = (ENGINES,)) -> tuple[Engine, Facts]:
    """Return the engine of ``folder`` and its facts; ``allowed``: see :func:`made`.

    Raises ModelError, and ObjectiveError where a package is missing.
    """
    facts = read_facts(folder)
    runtime = runtime_of(facts, allowed)
    missing = runtime.packages.missing(running=True)
    if missing is not None:
        raise ObjectiveError(missing)
    return runtime.open(folder, facts, threads), facts


def disk_bytes(folder: Path) -> int:
    """Return the bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
