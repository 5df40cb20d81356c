"""Checks that llama.cpp computes what an architecture computes, before one of its models is written.

Parameters with the names of Llama say little: an architecture may scale its residuals, rotate other pairs of channels,
or leave positions out of some layers. So a small twin with random weights is built from the config, written in fp32,
and both are asked.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from objectives.errors import Unsupported, said
from objectives.models import LoadedModel
from objectives.runtime.engines.llama_engine import LlamaDecoder
from objectives.runtime.engines.masks import causal
from objectives.runtime.formats import gguf_weights

if TYPE_CHECKING:
    from objectives.models.anatomy import Family

FAR = 1e-3
"""Relative error that the order of sums in fp32 does not explain."""
_LAYERS, _HEADS, _WIDTH, _VOCABULARY, _TOKENS = 8, 4, 64, 128, 24


def require_formula(model: LoadedModel, place: str) -> None:
    """Raise Unsupported where llama.cpp, the library at ``place``, would answer as another architecture.

    That it would not is kept for this process.
    """
    gguf_weights.require_llama(model)
    config = json.dumps(model.module.config.to_dict(), sort_keys=True, default=str)
    _require(cast("Hashable", type(model.module)), config, model.row, place)


@cache
def _require(kind: Hashable, config: str, row: Family | None, place: str) -> None:
    twin = _twin(kind, json.loads(config), row)
    ids = np.random.default_rng(0).integers(2, _VOCABULARY, (1, _TOKENS))
    with torch.inference_mode():
        wanted = twin.module(input_ids=torch.from_numpy(ids)).logits.numpy()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "twin.gguf"
        gguf_weights.write(twin, file)
        engine = LlamaDecoder(file, place, 1, 32, repack=True)
        places = np.arange(_TOKENS)
        found, _ = engine.run(ids, causal(1, _TOKENS, _TOKENS, None), places[None], places, engine.start(1))
    off = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    if not off < FAR:
        name = twin.module.config.model_type
        raise Unsupported(f"llama.cpp computes {name} models otherwise than transformers: its answer is {off:.1%} off")


def _twin(kind: Any, config: dict[str, Any], row: Family | None) -> LoadedModel:
    """Return a small model of the same architecture in fp32, all of whose parameters are random."""
    layers = min(_LAYERS, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    grouped = (config.get("num_key_value_heads") or heads) < heads
    lists = {
        name: value[:layers]
        for name, value in config.items()
        if isinstance(value, list) and len(value) == config["num_hidden_layers"]
    }
    ends = {name: None if value is None else 0 for name, value in config.items() if name.endswith("_token_id")}
    changed = copy.deepcopy(config) | lists | ends | {
        "num_hidden_layers": layers, "num_attention_heads": _HEADS, "hidden_size": _HEADS * head_dim,
        "num_key_value_heads": _HEADS // 2 if grouped else _HEADS, "head_dim": head_dim,
        "intermediate_size": _WIDTH, "vocab_size": _VOCABULARY, "dtype": "float32",
    }  # fmt: skip
    try:
        module = kind(kind.config_class.from_dict(changed)).float().eval().requires_grad_(False)
    except Exception as error:  # configs and classes refuse in many ways
        raise Unsupported(
            f"llama.cpp: no small {config['model_type']} model can be built to compare: {said(error)}"
        ) from error
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return LoadedModel(module, None, "causal_lm", row=row)
