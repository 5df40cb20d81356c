"""The same tensors in another class of transformers, where a model's own class has no config for its shapes.

Llama's config refuses a hidden size that is no multiple of the number of heads. Mistral's does not, and without a
window Mistral computes as Llama does. That is not taken from the names: the modules of a model are put into the other
class, and both are asked.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING

from objectives.errors import Unsupported, described
from objectives.export.engines import Layout
from objectives.export.export_check import differing, model_answers
from objectives.models import LoadedModel
from objectives.runtime.engines.weights import Rounded, is_matrix, matrices
from objectives.runtime.formats.hugging_face import others
from objectives.runtime.formats.plain_config import config_of, stock_class

ROWS, TOKENS = 2, 24
_CLOSEST = "mistral"
_WINDOW = {"sliding_window": None}


def layout_of(model: LoadedModel) -> Layout:
    """Return how alike the blocks of each stack are."""
    shapes: dict[str, set[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for block in model.blocks():
        counts: dict[str, list[int]] = {"attention": [], "ffn": []}
        for unit in block.units:
            counts.setdefault(unit.kind, []).append(unit.count)
        stack = block.name.rpartition(".")[0]
        shapes.setdefault(stack, set()).add((tuple(counts["attention"]), tuple(counts["ffn"])))
    if all(len(found) == 1 for found in shapes.values()):
        return Layout.UNIFORM
    heads_stay = all(len({heads for heads, _ in found}) == 1 for found in shapes.values())
    return Layout.DECI if heads_stay else Layout.FREE


def expressible(model: LoadedModel) -> LoadedModel:
    """Return ``model`` itself, or its twin in a class whose config has its shapes. Raises Unsupported."""
    if layout_of(model) is not Layout.UNIFORM:
        raise Unsupported(
            "this format has one width for all blocks, and those of this model differ: pruning.layout=uniform, or "
            "format=gguf"
        )
    shapes = {
        f"{name}.weight": (each.codes if isinstance(each, Rounded) else each.values).shape
        for name, each in matrices(model)
    }
    shapes |= {name: tensor.shape for name, tensor in others(model)}
    if _is_read_again(config_of(model, shapes)):
        return model
    found = relative(model, _CLOSEST)
    if found is None:
        kind = model.module.config.model_type
        raise Unsupported(f"no config of {kind} says these widths, and no other class computes what it computes")
    return found


def _is_read_again(config: Any) -> bool:
    """Return whether there is a config and its class accepts it when it is read from a file: some are checked then."""
    if config is None:
        return False
    try:
        _built(config.model_type, json.loads(config.to_json_string()))
    except ValueError:
        return False
    return True


def relative(model: LoadedModel, kind: str) -> LoadedModel | None:
    """Return the modules of ``model`` in the class of another model type; None where that answers otherwise."""
    try:
        twin = _twin(model, kind)
        answers = model_answers(twin, _ids(model))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, IndexError):
        return None
    return twin if differing(answers, model_answers(model, _ids(model))) is None else None


def _ids(model: LoadedModel) -> Tensor:
    return torch.randint(0, model.vocabulary, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))


def _twin(model: LoadedModel, kind: str) -> LoadedModel:
    block = next(model.blocks())
    attention = block.stack.attentions[0]
    query, key = (block.linear(path).out_features // block.head_dim for path in (attention.query, attention.key))
    fields = model.module.config.to_dict()
    for name in ("model_type", "architectures", "transformers_version", "layer_types"):
        fields.pop(name, None)
    fields |= {
        "num_hidden_layers": len(list(model.blocks())), "num_attention_heads": query, "num_key_value_heads": key,
        "head_dim": block.head_dim, "intermediate_size": block.linear(block.stack.ffns[0].out).in_features, **_WINDOW,
    }  # fmt: skip
    config = _built(kind, fields)
    module = stock_class(config, model)
    leaves = {name for name, part in module.named_modules() if _holds(part)}
    if leaves != {name for name, part in model.module.named_modules() if _holds(part)}:
        raise ValueError(f"{kind} has other modules")
    for name in leaves:
        module.set_submodule(name, model.module.get_submodule(name))
    module.eval().requires_grad_(False)
    module.set_attn_implementation(model.module.config._attn_implementation)  # type: ignore[operator]
    module.generation_config = getattr(model.module, "generation_config", None)  # type: ignore[assignment]
    return LoadedModel(module, model.tokenizer, model.head, layers=dict(model.layers))


def _built(kind: str, fields: dict[str, Any]) -> Any:
    """Return the config of a model type. Raises ValueError where it takes no such fields."""
    try:
        return CONFIG_MAPPING[kind].from_dict(fields)
    except Exception as error:  # configs refuse in many ways
        raise ValueError(described(error)) from error


def _holds(part: nn.Module) -> bool:
    """Return whether a module has tensors of its own that a checkpoint holds."""
    tensors = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
    return is_matrix(part) or (bool(tensors) and not hasattr(part, "inv_freq"))
