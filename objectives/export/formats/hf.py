"""A plain checkpoint of transformers in 16 bits; where FFN widths differ by block, one with a config per block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from objectives.errors import Unsupported
from objectives.export.engines import TRANSFORMERS, VLLM, Layout
from objectives.export.relatives import expressible, layout_of, relative
from objectives.models import LoadedModel
from objectives.runtime.formats import deci, hugging_face

LOADERS = (TRANSFORMERS, VLLM)
ROUNDS_INPUTS = ()
COMMANDS = {
    "transformers": "python -c \"import transformers; transformers.AutoModelForCausalLM.from_pretrained('.')\"",
    "vLLM": "vllm serve .",
}


def write(model: LoadedModel, tokenizer: Any, folder: Path) -> dict[str, int]:
    """Write ``model`` into ``folder`` and return the bytes of each matrix by its module's name. Raises Unsupported."""
    if layout_of(model) is not Layout.DECI:
        return hugging_face.write(expressible(model), tokenizer, folder)
    llama = relative(model, "llama")
    if llama is None:
        raise Unsupported(
            "format=hf: FFN widths that differ by block are written of models that compute as a Llama does: "
            "pruning.layout=uniform"
        )
    return deci.write(llama, tokenizer, folder)


def opened(folder: Path) -> Path:
    """Return the folder itself."""
    return folder
