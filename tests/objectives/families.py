"""On which families a contract is tried, and how a model of any of them is asked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from objectives.models import LoadedModel
from objectives.models.families import FAMILIES
from objectives.models.heads import encoded
from objectives.types import ENCODERS
from tests.conftest import HEADS
from tests.objectives.recipes import choices

CORE = ("bert", "llama", "mistral", "qwen2")
"""Tried in every combination; the others, which differ from them by data alone, in a few."""
TRIED = (
    *CORE, "albert", "bart", "bloom", "cohere", "distilbert", "electra", "falcon", "gemma", "gemma2",
    "gemma3_text", "gpt2", "marian", "modernbert", "opt", "phi3", "qwen3", "roberta", "t5",
)  # fmt: skip
"""One at least of every way in which blocks are built; the others are alike, and test_families.py tries each once."""
OTHERS = tuple(sorted(set(TRIED) - set(CORE)))
DECODERS = tuple(sorted(set(TRIED) - HEADS.keys()))
SEQ2SEQ = tuple(sorted(family for family in TRIED if HEADS.get(family) == "seq2seq"))
MAIN = {"pruning": "structured", "quantization": "gptq"}
"""The member of a group that is tried on all families."""

each_family = pytest.mark.parametrize("family", sorted(TRIED))
SHORTENED = sorted(family for family in TRIED if all(stack.depth for stack in FAMILIES[family].stacks))
"""Those of them whose blocks may go."""
each_core_family = pytest.mark.parametrize("family", CORE)


def pairs(group: str) -> list[tuple[str, str]]:
    """(choice, family): all members of a group on the core families, the main one on the others."""
    everything = [(choice, family) for choice in choices(group) for family in CORE]
    return everything + [(MAIN[group], family) for family in OTHERS]


def answer(model: LoadedModel, ids: Tensor) -> Tensor:
    """Logits of a model that has them, else the last hidden states."""
    with torch.inference_mode():
        output = model.module(**model.inputs(ids))
    return encoded(model.head, output) if model.head in ENCODERS else output.logits
