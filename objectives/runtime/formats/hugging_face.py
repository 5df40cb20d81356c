"""A plain Hugging Face checkpoint: what transformers, and every engine that reads its folders, loads by itself.

It holds models of 16 bits whose shapes a config can say: blocks that are alike, as whole blocks less or narrower ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.runtime.engines.weights import Dense, Rounded, Stored, is_matrix, matrices, owners
from objectives.runtime.formats.plain_config import config_of, is_transposed, stock_class

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write(model: LoadedModel, tokenizer: Any, folder: Path) -> dict[str, int]:
    """Write ``model`` into ``folder`` and return the bytes of each matrix by its module's name. Raises Unsupported.

    ``tokenizer``: None where the folder needs none.
    """
    stored = dict(matrices(model))
    odd = sorted({each.bits for each in stored.values() if isinstance(each, Rounded)})
    if odd:
        raise Unsupported(f"a plain checkpoint holds 16 bits, the model has {odd[0]}: quantization.bits=16")
    config = plain_config(model, stored)
    stock, tensors = stock_class(config, model), dict(others(model))
    for name, dense in stored.items():
        assert isinstance(dense, Dense)
        weight = torch.from_numpy(dense.values).to(torch.bfloat16)  # checkpoints are read in bf16, whatever computes
        name = f"{name}.weight"
        tensors[name] = weight.t().contiguous() if is_transposed(stock, name) else weight
    write_folder(folder, model, config, tensors, tokenizer)
    return {name: each.values.size * 2 for name, each in stored.items() if isinstance(each, Dense)}


def plain_config(model: LoadedModel, stored: Mapping[str, Stored]) -> Any:
    """Return the config that describes the shapes of ``model``; ``stored``: its matrices by name. Raises Unsupported.

    Matrices that share a tensor are named once.
    """
    shapes = {f"{name}.weight": _shape(each) for name, each in stored.items()}
    shapes |= {name: tuple(tensor.shape) for name, tensor in others(model)}
    config = config_of(model, shapes)
    if config is None:
        raise Unsupported(
            f"no config of {type(model.module).__name__} says these widths: blocks of a plain checkpoint are alike "
            "(pruning.layout=uniform)"
        )
    config.dtype, config.architectures = torch.bfloat16, [type(model.module).__name__]
    return config


def others(model: LoadedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters that no matrix holds, norms and biases, by name, in bf16."""
    shared = {name for name, owner in owners(model).items() if name != owner}
    for name, module in model.module.named_modules():
        for leaf, value in () if name in shared else module.named_parameters(recurse=False):
            if leaf != "weight" or not is_matrix(module):
                yield f"{name}.{leaf}", value.detach().to(torch.bfloat16)


def write_folder(folder: Path, model: LoadedModel, config: Any, tensors: Mapping[str, Tensor], tokenizer: Any) -> None:
    """Write ``config``, ``tensors`` and what belongs to a checkpoint besides into ``folder``."""
    config.to_json_file(folder / CONFIG)
    if model.module.can_generate():
        model.module.generation_config.to_json_file(folder / "generation_config.json")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # written as 0600


def _shape(stored: Stored) -> tuple[int, ...]:
    values = stored.codes if isinstance(stored, Rounded) else stored.values
    return tuple(values.shape)
