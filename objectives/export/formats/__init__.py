"""The formats of ``paretune export format=...``, a file each, found by its name.

A file has ``LOADERS``, the stock engines that are asked; ``write(model, tokenizer, folder)``, which returns the bytes
of every matrix; ``opened(folder)``, the path that an engine is given; ``COMMANDS``, how a user loads it, by engine; and
``ROUNDS_INPUTS``, the bits of weights whose inputs its engines round to 8 bits.
What is written is in :mod:`objectives.runtime.formats`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from objectives.export.engines import Loader
    from objectives.models import LoadedModel

ENGINE = "engine"
"""The name of what is no stock format: the folder that was measured."""


class Format(Protocol):
    """A file of this package."""

    LOADERS: tuple[Loader, ...]
    COMMANDS: Mapping[str, str]
    ROUNDS_INPUTS: Collection[int]

    def write(self, model: LoadedModel, tokenizer: Any, folder: Path) -> dict[str, int]:
        """Write ``model`` into ``folder`` and return the bytes of each matrix. Raises Unsupported."""

    def opened(self, folder: Path) -> Path:
        """Return what an engine is given to open."""


def names() -> tuple[str, ...]:
    """Return what ``format`` may be."""
    return (ENGINE, *sorted(module.name.replace("_", "-") for module in iter_modules(__path__)))


def load(name: str) -> Format:
    """Return the format of this name, one of :func:`names` other than ``engine``."""
    return cast("Format", import_module(f"{__name__}.{name.replace('-', '_')}"))
