"""An engine as a folder: its files, and ``engine.json``, which says what opens them. Nothing here needs torch."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from objectives.errors import ModelError, ObjectiveError
from objectives.models.notes import notes_of, stored_notes
from objectives.protocols.candidate import Runtime
from objectives.protocols.running import EndPhase
from objectives.runtime.packages import Packages
from objectives.types import Head, Note

FACTS = "engine.json"
ENGINES = "objectives.runtime."

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Facts:
    """``runtime``: the class that opens the folder, ``settings``: its own, ``options``: what it decided when it wrote;
    ``caches``: (heads, width) of every past key and value; ``stored``: bytes of each matrix by its module's name,
    ``others``: of all else; ``block_weights``, ``block_bytes``: number and bytes of the block linears; ``seconds``:
    that making it took.
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

    @property
    def weight_bytes(self) -> int:
        """Of all that the files hold of the model."""
        return sum(self.stored.values()) + self.others


class EncoderEngine(Protocol):
    """Runs an encoder."""

    def encode(self, ids: Ids, mask: NDArray[np.bool_] | None) -> Floats:
        """``ids`` [rows, tokens], ``mask`` False where a token does not count -> [rows, tokens, width]."""


class DecoderEngine(Protocol):
    """Runs a decoder pass by pass."""

    def start(self, rows: int) -> Any:
        """An empty cache."""

    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: Any) -> tuple[Floats, Any]:
        """See :class:`objectives.runtime.engines.graph_export.Decoder`: logits [rows, wanted, vocabulary] and the
        cache to go on from.
        """


@runtime_checkable
class Generating(Protocol):
    """A decoder that generates by itself."""

    def generate(self, ids: Ids, out: Ids, mask: NDArray[np.bool_] | None, end_phase: EndPhase | None) -> None:
        """See ``Runner``, in numpy."""


Engine = EncoderEngine | DecoderEngine


class Opener(Protocol):
    """A runtime whose folders can be opened again."""

    def open(self, folder: Path, facts: Facts, threads: int) -> Engine:
        """The engine of ``folder``; imports what it needs."""

    @property
    def packages(self) -> Packages:
        """What it is made of."""


def write_facts(folder: Path, facts: Facts) -> None:
    """Beside the engine's own files."""
    (folder / FACTS).write_text(
        json.dumps({**asdict(facts), "notes": stored_notes(facts.notes)}, indent=1), encoding="utf-8"
    )


def read_facts(folder: Path) -> Facts:
    """Raises ModelError."""
    file = folder / FACTS
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        found["notes"] = notes_of(found["notes"])
        return Facts(**{field.name: found[field.name] for field in fields(Facts)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: no engine is described there: {error}") from error


def runtime_of(facts: Facts, allowed: Sequence[str] = (ENGINES,)) -> Opener:
    """The object that opens the folder; ``allowed``: see :func:`made`. Raises ModelError."""
    found: Opener = made(facts.runtime, facts.settings, f"{FACTS}: runtime", allowed)
    return found


def made(path: str, settings: Mapping[str, Any], key: str, allowed: Sequence[str] = (ENGINES,)) -> Any:
    """Return the runtime that a folder names by the ``path`` of its class, with its ``settings``.

    ``allowed``: whole paths, and beginnings that end in a dot. A folder may come from anybody: nothing is called but
    classes that are runtimes and stand in the module that the path names. Raises ModelError; ``key``: file and setting.
    """
    if not any(path.startswith(one) if one.endswith(".") else path == one for one in allowed):
        raise ModelError(
            f"{key} must start with one of {', '.join(allowed)}; got {path!r} (objectives.load(folder, "
            "allow_targets=[...]) admits modules of your own)"
        )
    module, _, name = path.rpartition(".")
    try:
        found = vars(importlib.import_module(module)).get(name)
        if not isinstance(found, type) or found.__module__ != module or not _is_runtime(found):
            raise ModelError(f"{key}: {path} is no class of runtimes, as {ENGINES}onnxruntime.OnnxRuntime is one")
        return found(**settings)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ModelError(f"{key}: {path} cannot be made: {error}") from error


def _is_runtime(found: type) -> bool:
    return all(hasattr(found, member) for member in vars(Runtime) if not member.startswith("_"))


def open_engine(folder: Path, threads: int, allowed: Sequence[str] = (ENGINES,)) -> tuple[Engine, Facts]:
    """The engine of ``folder``; ``allowed``: see :func:`runtime_of`. Raises ModelError, and ObjectiveError where a
    package is missing.
    """
    facts = read_facts(folder)
    runtime = runtime_of(facts, allowed)
    missing = runtime.packages.missing(running=True)
    if missing is not None:
        raise ObjectiveError(missing)
    return runtime.open(folder, facts, threads), facts


def disk_bytes(folder: Path) -> int:
    """Of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
