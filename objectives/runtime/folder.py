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
from objectives.runtime.packages import Packages
from objectives.types import Head, Lap

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
    notes: Sequence[str]

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
        """See :class:`objectives.runtime.export.Decoder`: logits [rows, wanted, vocabulary] and the cache to go on
        from.
        """


@runtime_checkable
class Generating(Protocol):
    """A decoder that generates by itself."""

    def generate(self, ids: Ids, out: Ids, mask: NDArray[np.bool_] | None, lap: Lap | None) -> None:
        """See ``objectives.types.Runner``, in numpy."""


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
    (folder / FACTS).write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")


def read_facts(folder: Path) -> Facts:
    """Raises ModelError."""
    file = folder / FACTS
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Facts(**{field.name: found[field.name] for field in fields(Facts)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: no engine is described there: {error}") from error


def runtime_of(facts: Facts, allowed: Sequence[str] = (ENGINES,)) -> Opener:
    """The object that opens the folder; ``allowed``: with what the path of its class may begin.

    Raises ModelError for another class, and for one that is not there.
    """
    found: Opener = made_runtime(facts.runtime, facts.settings, FACTS, allowed)
    return found


def made_runtime(path: str, settings: Mapping[str, Any], where: str, allowed: Sequence[str] = (ENGINES,)) -> Any:
    """Make the runtime whose class a file names; ``where``: that file, for messages.

    A file comes from anywhere, so nothing but a class of runtimes is called: one that is defined in the module that it
    is named by, below one of ``allowed`` (a package, ending in a dot) or one of these itself. Raises ModelError.
    """
    module, _, name = path.rpartition(".")
    if not any(path == each or (each.endswith(".") and path.startswith(each)) for each in allowed):
        raise ModelError(f"{where}: runtime must start with one of {', '.join(allowed)}; got {path!r}")
    try:
        kind = getattr(importlib.import_module(module), name)
        if not isinstance(kind, type) or kind.__module__ != module or not set(dir(kind)) >= _RUNTIME:
            raise TypeError("it is no runtime")
        return kind(**settings)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ModelError(f"{where}: {path} cannot be made: {error}") from error


_RUNTIME = {"name", "is_torch", "requirements", "supports", "storage", "versions", "prepare"}
"""Members of ``objectives.types.Runtime``."""


def path_of(runtime: object) -> str:
    """The class of ``runtime`` as ``engine.json`` names it."""
    return f"{type(runtime).__module__}.{type(runtime).__qualname__}"


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
