"""A compressed model as a folder, and back: safetensors, the original config, the tokenizer, ``paretune.json``.

A config cannot say that layer 7 keeps two KV heads and 1408 FFN channels, or that a weight is packed int4. So the
folder carries a manifest: per unit the kept width, per linear how it is stored. Loading builds the model from
the original config without weights, shrinks and packs it to the manifest, and then takes every tensor strictly:
nothing missing, nothing left over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from objectives.canonical import canonicalize_
from objectives.content import sha256
from objectives.devices.cpu import Cpu
from objectives.errors import ModelError, Unsupported
from objectives.models import LoadedModel, auto_class
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.embedding import Int8Embedding, replace_
from objectives.packing.fp32 import Fp32Linear
from objectives.packing.int4 import Int4Linear
from objectives.packing.int8 import Int8Linear, Int8WeightLinear
from objectives.packing.linear import PackedLinear
from objectives.pruning import surgery
from objectives.types import Head

MANIFEST = "paretune.json"
_HASHED = ("model.safetensors", "config.json")
_STORED: Mapping[str, type[nn.Module]] = {
    "fp32": Fp32Linear,
    "bf16": Bf16Linear,
    "int8": Int8Linear,
    "int8_weight_only": Int8WeightLinear,
    "int4": Int4Linear,
    "int8_embedding": Int8Embedding,
}


def save(model: LoadedModel, folder: Path, facts: Mapping[str, Any] | None = None) -> int:
    """Write ``model`` (packed for the CPU) into the new ``folder``; returns the bytes of its weights on disk.

    ``facts``: anything to keep in the manifest, such as the recipe and what was measured. Raises Unsupported for a
    model on a GPU.
    """
    if model.device.type != "cpu":
        raise Unsupported(
            f"models on {model.device.type} are not written yet; the same study with device=cpu writes them"
        )
    manifest = {
        "format": 5,
        "versions": {name: version(name) for name in ("paretune", "torch", "transformers")},
        "head": model.head,
        "layers": model.layers,
        "widths": _nested(model.widths),
        "linears": {name: _describe(module, model) for name, module in _packed(model.module)},
        "notes": model.notes,
        **(facts or {}),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        part = Path(temporary) / "part"
        part.mkdir()
        model.module.config.save_pretrained(part)
        if model.module.can_generate():
            model.module.generation_config.save_pretrained(part)
        model.tokenizer.save_pretrained(part)
        save_file(_unique(model.module), part / "model.safetensors", metadata={"format": "pt"})
        (part / "model.safetensors").chmod((part / "config.json").stat().st_mode)  # written as 0600
        manifest["sha256"] = {name: sha256(part / name) for name in _HASHED}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        part.rename(folder)
    return (folder / "model.safetensors").stat().st_size


def disk_bytes(model: LoadedModel) -> int:
    """Bytes of the tensors that :func:`save` would write."""
    return sum(tensor.nbytes for tensor in _unique(model.module).values())


def load(folder: Path) -> LoadedModel:
    """Load what :func:`save` wrote, ready to run on the CPU. Raises ModelError naming file and expectation."""
    manifest = _manifest(folder)
    _check_hash(folder / "config.json", manifest)
    try:
        model = _empty_model(folder, manifest)
    except ModelError:
        raise
    except Exception as error:  # what was edited or lost shows anywhere
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"{folder}: {MANIFEST}, config and tokenizer describe no model: {reason}") from error
    _fill_(model.module, folder / "model.safetensors")
    _check_hash(folder / "model.safetensors", manifest)  # last: what differs in shape or name is said in these terms
    for module in model.module.modules():
        if isinstance(module, PackedLinear):
            module.settle_()
    return model


def _empty_model(folder: Path, manifest: Mapping[str, Any]) -> LoadedModel:
    """The model that the manifest describes, its tensors still empty."""
    model = _skeleton(folder, manifest)
    model.layers.update(_layers(folder, manifest, model))
    for name, widths in manifest["widths"].items():
        block = model.block(name)
        for unit in block.units:
            if unit.consumer in widths:
                model.widths[unit.key] = surgery.shrink_(block, unit, widths.pop(unit.consumer))
        if widths:
            raise ModelError(f"{folder}: {MANIFEST} prunes {name}.{next(iter(widths))}, which is no unit of the model")
    for name, description in manifest["linears"].items():
        replace_(model.module, name, _empty(model, model.module.get_submodule(name), description))
    Cpu().place_(model)
    model.notes.extend(manifest["notes"])
    return model


def _packed(module: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = tuple(_STORED.values())
    return [(name, child) for name, child in module.named_modules() if isinstance(child, kinds)]


def _unique(module: nn.Module) -> dict[str, Tensor]:
    """All persistent tensors; one that several modules share is written once."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen:
            tensors[name] = tensor
            seen.add(tensor.data_ptr())
    return tensors


def _describe(module: nn.Module, model: LoadedModel) -> dict[str, Any]:
    description: dict[str, Any] = {"stored": next(name for name, cls in _STORED.items() if type(module) is cls)}
    if isinstance(module, Int4Linear):
        description |= {"group_size": module.group_size, "scaled_inputs": module.inputs is not None}
    if isinstance(module, Int8Embedding):
        description["factor"] = module.factor
    first = _embedding(model)
    if first is not None and module is not first and getattr(module, "codes", None) is first.codes:
        description["tied"] = True
    return description


def _embedding(model: LoadedModel) -> Int8Embedding | None:
    """The packed embedding, of several that share their tensors the first."""
    return next((part for part in model.module.modules() if isinstance(part, Int8Embedding)), None)


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        raise ModelError(f"{file} not found: {folder} was not written by paretune export")
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is no valid JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != 5:
        found = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise ModelError(f"{file}: format 5 expected, got {found!r}")
    return manifest


def _check_hash(file: Path, manifest: Mapping[str, Any]) -> None:
    """Raises ModelError for a file that was changed; what is missing is said where it is read."""
    wanted = manifest.get("sha256")
    if not isinstance(wanted, dict) or file.name not in wanted:
        raise ModelError(f"{file.parent}: {MANIFEST} has no sha256 of {file.name}")
    if file.is_file() and (found := sha256(file)) != wanted[file.name]:
        raise ModelError(f"{file}: changed since it was written: sha256 {wanted[file.name]} expected, got {found}")


def _skeleton(folder: Path, manifest: Mapping[str, Any]) -> LoadedModel:
    """The model of the original config, its tensors still empty."""
    head: Head = manifest["head"]
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    with no_init_weights():
        module = auto_class(head).from_config(config, dtype=torch.bfloat16)
    module.tie_weights()
    if module.can_generate() and (folder / "generation_config.json").is_file():
        module.generation_config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return canonicalize_(LoadedModel(module.eval().requires_grad_(False), tokenizer, head))


def _nested(widths: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """By block, then by consumer."""
    nested: dict[str, dict[str, int]] = {}
    for (block, consumer), kept in widths.items():
        nested.setdefault(block, {})[consumer] = kept
    return nested


def _layers(folder: Path, manifest: Mapping[str, Any], model: LoadedModel) -> dict[str, tuple[int, ...]]:
    """By stack, which blocks of the dense model are left; the config already says how many."""
    layers = {path: tuple(indices) for path, indices in manifest["layers"].items()}
    there = {stack.layers: len(model.layers_of(stack)) for stack in model.family.stacks}
    for path, indices in layers.items():
        if there.get(path) != len(indices):
            raise ModelError(f"{folder}: {MANIFEST} has {len(indices)} {path}, config.json {there.get(path)}")
    return layers


def _empty(model: LoadedModel, linear: nn.Module, description: Mapping[str, Any]) -> nn.Module:
    """A packed linear of the right shapes, still to be filled; a tied weight stays tied."""
    stored = description["stored"]
    first = _embedding(model) if description.get("tied") else None
    if stored == "int8_embedding":
        assert isinstance(linear, nn.Embedding)
        shape = linear.weight.shape
        codes = torch.empty(shape, dtype=torch.int8) if first is None else first.codes
        return Int8Embedding(codes, torch.empty(shape[0]) if first is None else first.scale, description["factor"])
    assert isinstance(linear, nn.Linear)
    if first is not None:
        return Int8WeightLinear(first.codes, first.scale, linear.bias)
    out, width, bias = linear.out_features, linear.in_features, linear.bias
    if stored == "fp32":
        return Fp32Linear.from_linear(linear)
    if stored == "bf16":
        return Bf16Linear.from_linear(linear)
    if stored in {"int8", "int8_weight_only"}:
        kind = Int8Linear if stored == "int8" else Int8WeightLinear
        return kind(torch.empty(out, width, dtype=torch.int8), torch.empty(out), bias)
    if stored != "int4":
        raise ValueError(f"stored: one of {', '.join(_STORED)} expected, got {stored!r}")
    scale_zero = torch.empty(width // description["group_size"], out, 2, dtype=torch.bfloat16)
    inputs = torch.empty(width, dtype=torch.bfloat16) if description["scaled_inputs"] else None
    return Int4Linear(torch.empty(out, width // 2, dtype=torch.uint8), scale_zero, bias, inputs)


def _fill_(module: nn.Module, file: Path) -> None:
    """Copy every tensor of ``file`` into place: same names, same shapes, none missing, none left over.

    Floats may change their width: what is not packed follows the CPU that loads it.
    """
    try:
        stored = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: not a readable safetensors file: {error}") from error
    wanted = _unique(module)
    wrong = sorted(wanted.keys() ^ stored.keys())
    wrong += sorted(name for name in wanted.keys() & stored.keys() if not _fits(stored[name], wanted[name]))
    if wrong:
        raise ModelError(f"{file}: does not match {MANIFEST}; first differing tensor: {wrong[0]}")
    for name, tensor in wanted.items():
        tensor.copy_(stored[name])


def _fits(stored: Tensor, wanted: Tensor) -> bool:
    floats = stored.is_floating_point() and wanted.is_floating_point()
    return stored.shape == wanted.shape and (floats or stored.dtype == wanted.dtype)
