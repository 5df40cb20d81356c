"""Makes a winner's folder a plain checkpoint that transformers loads with equal answers, or one that it refuses.

A folder whose linears are packed, or whose blocks differ in their widths, has no config that says so: transformers
would load what it can name, initialise the rest and answer nonsense. Such a folder is *closed*: its config.json is a
stub that no class of transformers opens, the config stands in ``paretune_config.json`` and the weights in
``paretune.safetensors``. Whether a folder can be *plain* instead is not looked up but tried: the class is built from a
config, names and shapes are compared, then it is loaded by ``from_pretrained`` and asked.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from objectives.content_hash import sha256
from objectives.devices.cpu import Cpu
from objectives.export.export_check import differing, model_answers
from objectives.models import LoadedModel, auto_class
from objectives.models.anatomy import Stack
from objectives.models.canonical import canonicalize_
from objectives.models.inspection.folders import MANIFEST as MANIFEST
from objectives.packing.fp32 import Fp32Linear
from objectives.tasks.answers import in_a_line

log = logging.getLogger(__name__)

CONFIG = "config.json"
OWN_CONFIG = "paretune_config.json"
PLAIN_WEIGHTS = "model.safetensors"
OWN_WEIGHTS = "paretune.safetensors"
HINT = "paretune: open this folder with objectives.load(folder)"

TRIES = 8
"""Number of fields without a value that are tried: for each the model is built, in as much memory as it takes."""

_STUB = {
    "model_type": HINT,  # what AutoConfig, and so every Auto class, names and refuses
    "transformers_weights": HINT,  # what a class called by its own name refuses: no name of a file
    "quantization_config": {"quant_method": HINT},  # what other servers read
}


def close_(folder: Path) -> None:
    """Write the config.json that stock loaders refuse, with the way out in their message."""
    (folder / CONFIG).write_text(json.dumps(_STUB, indent=1) + "\n", encoding="utf-8")


def publish_(folder: Path, model: LoadedModel, ids: Tensor) -> bool:
    """Make the closed ``folder`` of ``model`` a plain checkpoint, if that answers alike to the bit.

    ``ids`` [rows, tokens]: the tokens to answer. Return whether the folder is a plain checkpoint now.
    """
    tensors = load_file(folder / OWN_WEIGHTS)
    config = _expressed(model, tensors)
    if config is None:
        return False
    stock = _built(config, model)
    transposed = sorted(name for name in tensors if _is_transposed(stock, name))
    for name in transposed:
        tensors[name] = tensors[name].t().contiguous()
    wide = any(isinstance(module, Fp32Linear) for module in model.module.modules())
    config.dtype, config.architectures = torch.float32 if wide else torch.bfloat16, [type(model.module).__name__]
    with TemporaryDirectory(dir=folder) as temporary:
        trial = Path(temporary)
        config.to_json_file(trial / CONFIG)
        if (folder / "generation_config.json").is_file():
            shutil.copy(folder / "generation_config.json", trial)
        save_file(tensors, trial / PLAIN_WEIGHTS, metadata={"format": "pt"})
        if not _answers_alike(trial, model, ids, config.dtype):
            return False
        for name in (CONFIG, PLAIN_WEIGHTS):
            (trial / name).chmod((folder / OWN_CONFIG).stat().st_mode)
            (trial / name).rename(folder / name)
    (folder / OWN_WEIGHTS).unlink()
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    hashes = {name: digest for name, digest in manifest["sha256"].items() if name != OWN_WEIGHTS}
    hashes |= {name: sha256(folder / name) for name in (CONFIG, PLAIN_WEIGHTS)}
    (folder / MANIFEST).write_text(
        json.dumps({**manifest, "plain": True, "transposed": transposed, "sha256": hashes}, indent=1), encoding="utf-8"
    )
    return True


def _answers_alike(folder: Path, model: LoadedModel, ids: Tensor, dtype: torch.dtype) -> bool:
    """Return whether ``from_pretrained`` loads ``folder`` to a model that answers alike to the bit.

    It must take every tensor and miss none. The answers are compared once its linears have the form of ours.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        module, info = auto_class(model.head).from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
        if any(info.get(kind) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            return False
        stock = canonicalize_(
            LoadedModel(module.eval().requires_grad_(False), model.tokenizer, model.head, row=model.row)
        )
        if dtype == torch.float32:
            for name, part in list(module.named_modules()):
                if type(part) is nn.Linear:
                    module.set_submodule(name, Fp32Linear.from_linear(part))
        Cpu().to_device_(stock)
        module.set_attn_implementation(model.module.config._attn_implementation)
        return differing(model_answers(stock, ids), model_answers(model, ids)) is None
    except (MemoryError, OSError):  # nothing that the folder could help
        raise
    except (
        Exception
    ) as error:  # whatever a class of transformers objects to: then the folder is none of its checkpoints
        log.info("%s: no plain checkpoint: %s", type(model.module).__name__, in_a_line(error))
        return False


def _raise_of_machine(error: Exception) -> None:
    """Raise ``error`` again if memory or disk ran out; an OSError without a number is a refusal of transformers."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        raise error


def _expressed(model: LoadedModel, tensors: Mapping[str, Tensor]) -> Any:
    """Return a config whose class has exactly ``tensors``, by name and shape; None where no fields give one."""
    config = copy.deepcopy(model.module.config)
    wrong = _mismatches(config, model, tensors)
    if wrong is None:
        return None
    for changes in _changes(model, config) if wrong else ():
        changed = _with(config, changes)
        left = None if changed is None else _mismatches(changed, model, tensors)
        if left is not None and len(left) < len(wrong):
            config, wrong = changed, left
        if not wrong:
            break
    return None if wrong else config


def _with(config: Any, changes: Mapping[str, Any]) -> Any:
    """Return a copy of ``config`` with ``changes``; None where a field takes no such value."""
    changed = copy.deepcopy(config)
    try:
        for name, value in changes.items():
            setattr(changed, name, value)
    except Exception as error:  # configs check in many ways
        _raise_of_machine(error)
        log.debug("%s takes no %s: %s", type(config).__name__, changes, in_a_line(error))
        return None
    return changed


def _changes(model: LoadedModel, dense: Any) -> Iterator[dict[str, Any]]:
    """Yield changes of fields that may express what all blocks of a stack lost, likely ones first.

    It ends at the first unit whose width differs between blocks.
    """
    whole = canonicalize_(LoadedModel(_built(dense, model), None, model.head, row=model.row))
    for stack in model.family.stacks:
        before = whole.block(f"{stack.layers}.0")
        after = [model.block(f"{stack.layers}.{index}") for index in model.layers_of(stack)]
        for unit, *kept_units in zip(before.units, *(block.units for block in after), strict=True):
            counts = {kept.count for kept in kept_units}
            if counts == {unit.count}:
                continue
            if len(counts) > 1:
                return
            yield from (
                _heads(stack, dense, before.head_dim, unit.count, counts.pop())
                if unit.kind == "attention"
                else _fields(dense, unit.count * unit.width, counts.pop() * unit.width)
            )


def _heads(stack: Stack, config: Any, head_dim: int, count: int, kept: int) -> Iterator[dict[str, Any]]:
    names = [name for name in (stack.heads, "num_key_value_heads") if isinstance(getattr(config, name, None), int)]
    fewer = {name: getattr(config, name) * kept // count for name in names}
    yield {**fewer, "head_dim": head_dim}
    yield fewer


def _fields(config: Any, width: int, kept: int) -> Iterator[dict[str, Any]]:
    """Yield ``kept`` for any field that holds ``width``, whatever it is called, then for some that hold nothing."""
    fields = {
        name: value for name, value in vars(config).items() if not name.startswith("_") and not _is_of_tokens(name)
    }
    yield from ({name: kept} for name, value in fields.items() if value == width and not isinstance(value, bool))
    empty = [name for name, value in fields.items() if value is None]
    yield from ({name: kept} for name in sorted(empty, key=_is_unlike_a_width)[:TRIES])


def _is_of_tokens(name: str) -> bool:
    return name.endswith(("_id", "_ids")) or "token" in name


def _is_unlike_a_width(name: str) -> bool:
    return not any(word in name for word in ("inner", "dim", "size", "ff", "intermediate"))


def _mismatches(config: Any, model: LoadedModel, tensors: Mapping[str, Tensor]) -> list[str] | None:
    """Return the names of tensors whose shapes differ; None where the class cannot be built, or lacks one of them."""
    try:
        stock = _built(config, model)
    except Exception as error:  # configs and classes refuse in many ways
        _raise_of_machine(error)
        log.debug("%s builds no model: %s", type(config).__name__, in_a_line(error))
        return None
    wanted = stock.state_dict()
    if tensors.keys() - wanted.keys():
        return None
    return [
        name
        for name, tensor in tensors.items()
        if (tensor.t() if _is_transposed(stock, name) else tensor).shape != wanted[name].shape
    ]


def _built(config: Any, model: LoadedModel) -> nn.Module:
    """Build the class of transformers that ``config`` describes, without values; not on meta: some read theirs."""
    with no_init_weights():
        module: nn.Module = auto_class(model.head).from_config(copy.deepcopy(config), dtype=torch.bfloat16)
    return module


def _is_transposed(stock: nn.Module, name: str) -> bool:
    owner, _, leaf = name.rpartition(".")
    return leaf == "weight" and isinstance(stock.get_submodule(owner), Conv1D)
