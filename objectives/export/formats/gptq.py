"""A checkpoint in GPTQ's layout, 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from objectives.export.engines import VLLM
from objectives.export.relatives import expressible
from objectives.models import LoadedModel
from objectives.runtime.formats import gptq

LOADERS = (VLLM,)
ROUNDS_INPUTS = ()
COMMANDS = {"vLLM": "vllm serve ."}


def write(model: LoadedModel, tokenizer: Any, folder: Path) -> dict[str, int]:
    """Write ``model`` into ``folder`` and return the bytes of each matrix by its module's name. Raises Unsupported."""
    return gptq.write(expressible(model), tokenizer, folder)


def opened(folder: Path) -> Path:
    """Return the folder itself."""
    return folder
