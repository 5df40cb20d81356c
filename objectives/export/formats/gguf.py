"""A GGUF file with its tokenizer, for llama.cpp and what is built on it."""

from __future__ import annotations

from pathlib import Path

from objectives.export.engines import XLLAMACPP
from objectives.runtime.formats.gguf import FILE
from objectives.runtime.formats.gguf import write as write

LOADERS = (XLLAMACPP,)
ROUNDS_INPUTS = (8,)
COMMANDS = {"llama.cpp": f"llama-server -m {FILE}"}


def opened(folder: Path) -> Path:
    """Return the file in ``folder``."""
    return folder / FILE
