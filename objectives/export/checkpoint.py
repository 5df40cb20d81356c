"""A compressed model as a folder, and back: safetensors, the dense model's config, the tokenizer, ``paretune.json``.

A config cannot say that layer 7 keeps two KV heads and 1408 FFN channels, or that a weight is packed int4. So the
folder carries a manifest: which blocks are left, per unit the kept width, per linear how it is stored. Loading builds
the dense model from its config without weights. It cuts, shrinks and packs that model to the manifest by the functions
that pruned it, so that a block still has what it derived from its place in the dense model. Then it takes every tensor
strictly: nothing missing, nothing left over. Attributes and buffers that differ from those of the model that was saved
are in the manifest too.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CONFIG_MAPPING
from transformers.initialization import no_init_weights

from objectives.content_hash import sha256
from objectives.devices.cpu import Cpu
from objectives.errors import ModelError, Unsupported, said
from objectives.export.packed_linears import describe, empty_like, packed_linears
from objectives.export.rebuilt import differences, set_attributes_
from objectives.export.stock import CONFIG, OWN_CONFIG, OWN_WEIGHTS, PLAIN_WEIGHTS, close_
from objectives.models import LoadedModel, auto_class, built_with
from objectives.models.anatomy import Family
from objectives.models.canonical import canonicalize_
from objectives.models.inspection.folders import MANIFEST
from objectives.models.notes import notes_of, stored_notes
from objectives.packing.embedding import replace_
from objectives.packing.linear import PackedLinear
from objectives.packing.weighing import unique_tensors
from objectives.pruning import surgery
from objectives.types import Head

FORMAT = 7
FORMATS = (5, FORMAT)
"""The formats that are read. In format 5, config.json describes the model without the removed blocks."""
ATTENTION = ("eager", "sdpa")
"""Ways to compute attention that a folder may ask for."""


def save(model: LoadedModel, folder: Path, facts: Mapping[str, Any] | None = None) -> int:
    """Write ``model`` (packed for the CPU) into the new ``folder``; return the bytes of its weights on disk.

    ``facts``: anything to keep in the manifest, such as the recipe and what was measured. Raises Unsupported for a
    model on a GPU.
    """
    device = model.module.device.type
    if device != "cpu":
        raise Unsupported(f"models on {device} are not written yet; the same study with device=cpu writes them")
    config = copy.deepcopy(model.dense_config or model.module.config)
    manifest = {**_description(model), **(facts or {})}
    manifest["attributes"], buffers = differences(model.module, _as_described(config, manifest).module)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        part = Path(temporary) / "part"
        part.mkdir()
        _write(part, model, config, buffers)
        manifest["buffers"] = sorted(buffers)
        manifest["sha256"] = {name: sha256(part / name) for name in (OWN_WEIGHTS, CONFIG, OWN_CONFIG)}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        part.rename(folder)
    return (folder / OWN_WEIGHTS).stat().st_size


def _description(model: LoadedModel) -> dict[str, Any]:
    """Describe ``model`` for the manifest, before it is compared with one that is built again."""
    return {
        "format": FORMAT,
        "versions": {name: version(name) for name in ("paretune", "torch", "transformers")},
        "head": model.head,
        **({} if model.row is None else {"family": asdict(model.row)}),
        "arguments": built_with(model.module),
        "plain": False,
        "transposed": [],
        "attention": model.module.config._attn_implementation,
        "layers": {path: list(kept) for path, kept in model.layers.items()},
        "widths": _nested(model.widths),
        "linears": {name: describe(module, model) for name, module in packed_linears(model.module)},
        "notes": stored_notes(model.notes),
    }


def _write(part: Path, model: LoadedModel, config: Any, buffers: Mapping[str, Tensor]) -> None:
    """Write all files but the manifest."""
    config.to_json_file(part / OWN_CONFIG)
    close_(part)
    if model.module.can_generate():
        model.module.generation_config.to_json_file(part / "generation_config.json")
    model.tokenizer.save_pretrained(part)
    save_file({**unique_tensors(model.module), **buffers}, part / OWN_WEIGHTS, metadata={"format": "pt"})
    (part / OWN_WEIGHTS).chmod((part / CONFIG).stat().st_mode)  # written as 0600


def load(folder: Path) -> LoadedModel:
    """Load what :func:`save` wrote, ready to run on the CPU. Raises ModelError naming file and expectation."""
    manifest = _manifest(folder)
    old = manifest["format"] != FORMAT
    config, weights = CONFIG if old else OWN_CONFIG, PLAIN_WEIGHTS if old or manifest.get("plain") else OWN_WEIGHTS
    _check_hash(folder / config, manifest)
    try:
        described = _config(folder / config)
        model = _as_described(described, {**manifest, "widths": copy.deepcopy(manifest["widths"])})
        _dress_(model, folder, manifest)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    except Exception as error:  # what was edited or lost shows anywhere
        reason = f"{type(error).__name__}: {said(error)}"
        raise ModelError(f"{folder}: {MANIFEST}, config and tokenizer describe no model: {reason}") from error
    _fill_(model.module, folder / weights, manifest)
    _check_hash(folder / weights, manifest)  # last: what differs in shape or name is said in these terms
    for module in model.module.modules():
        if isinstance(module, PackedLinear):
            module.repack_()
    Cpu().arrange_(model)
    return model


def _config(file: Path) -> Any:
    """Read the config in ``file`` as the very class that wrote it."""
    fields = json.loads(file.read_text(encoding="utf-8"))
    return CONFIG_MAPPING[fields["model_type"]].from_dict(fields)


def tokenizer_of(folder: Path) -> Any:
    """Load the tokenizer of a folder as the class that wrote it.

    Given a model's config, transformers may choose another class.
    """
    general = transformers.PreTrainedConfig()
    return transformers.AutoTokenizer.from_pretrained(folder, config=general, local_files_only=True)


def _dress_(model: LoadedModel, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Set the model's tokenizer, generation settings and notes, and the attributes that differed in the saved model."""
    if model.module.can_generate() and (folder / "generation_config.json").is_file():
        model.module.generation_config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    model.tokenizer = tokenizer_of(folder)
    model.notes.extend(notes_of(manifest["notes"]))
    if manifest["format"] == FORMAT:
        if manifest["attention"] not in ATTENTION:  # other names fetch kernels and their code from the hub
            raise ModelError(f"{MANIFEST}: attention must be {' or '.join(ATTENTION)}, got {manifest['attention']!r}")
        model.module.set_attn_implementation(manifest["attention"])
        set_attributes_(model.module, manifest["attributes"])


def _as_described(config: Any, manifest: Mapping[str, Any]) -> LoadedModel:
    """Build the model of ``config``, cut, shrunk and packed as the manifest says, its tensors still empty."""
    row = TypeAdapter(Family).validate_python(manifest["family"]) if "family" in manifest else None
    model = _fake(config, manifest["head"], row, manifest.get("arguments", {}))
    _cut_(model, manifest)
    for name, widths in manifest["widths"].items():
        block, wanted = model.block(name), dict(widths)
        for unit in block.units:
            if unit.consumer in wanted:
                model.widths[unit.key] = surgery.shrink_(block, unit, wanted.pop(unit.consumer))
        if wanted:
            raise ModelError(f"{MANIFEST} prunes {name}.{next(iter(wanted))}, which is no unit of the model")
    for name, description in manifest["linears"].items():
        replace_(model.module, name, empty_like(model, model.module.get_submodule(name), description))
    Cpu().to_device_(model)
    return model


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        raise ModelError(f"{file} not found: {folder} was not written by paretune export")
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is no valid JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") not in FORMATS:
        found = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise ModelError(f"{file}: format {' or '.join(map(str, FORMATS))} expected, got {found!r}")
    return manifest


def _check_hash(file: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ModelError for a file that was changed; a missing file is reported where it is read."""
    wanted = manifest.get("sha256")
    if not isinstance(wanted, dict) or file.name not in wanted:
        raise ModelError(f"{file.parent}: {MANIFEST} has no sha256 of {file.name}")
    if file.is_file() and (found := sha256(file)) != wanted[file.name]:
        raise ModelError(f"{file}: changed since it was written: sha256 {wanted[file.name]} expected, got {found}")


def _fake(config: Any, head: Head, row: Family | None, arguments: Mapping[str, Any]) -> LoadedModel:
    """Build the model of ``config``, its tensors still empty.

    ``row`` describes its architecture where none of our own rows does. ``arguments``: see
    :func:`objectives.models.built_with`.
    """
    with no_init_weights():
        module = auto_class(head).from_config(copy.deepcopy(config), dtype=torch.bfloat16, **arguments)
    module.tie_weights()
    for part in module.modules():
        if part._non_persistent_buffers_set:  # tables of positions: made in bf16 here, and in fp32 by from_pretrained
            module._init_weights(part)
    return canonicalize_(LoadedModel(module.eval().requires_grad_(False), None, head, row=row))


def _nested(widths: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Return the kept widths by block, then by consumer."""
    nested: dict[str, dict[str, int]] = {}
    for (block, consumer), kept in widths.items():
        nested.setdefault(block, {})[consumer] = kept
    return nested


def _cut_(model: LoadedModel, manifest: Mapping[str, Any]) -> None:
    """Leave only the blocks of each stack that the manifest keeps. Raises ModelError where the config lacks them."""
    stacks = {stack.layers: stack for stack in model.family.stacks}
    for path, kept in manifest["layers"].items():
        there = len(model.layers_of(stacks[path])) if path in stacks else None
        if manifest["format"] != FORMAT:  # the config knows already
            if there != len(kept):
                raise ModelError(f"{MANIFEST} has {len(kept)} {path}, config.json {there}")
            model.layers[path] = tuple(kept)
        elif there is None or not kept or kept != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < there:
            raise ModelError(f"{MANIFEST} keeps {path} {kept}, the config has {there or 'none'}")
        else:
            surgery.keep_layers_(model, stacks[path], kept)


def _fill_(module: nn.Module, file: Path, manifest: Mapping[str, Any]) -> None:
    """Copy every tensor of ``file`` into place: same names, same shapes, none missing, none left over.

    Floats may change their width: what is not packed follows the CPU that loads it.
    """
    try:
        stored = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: not a readable safetensors file: {error}") from error
    for name in {*manifest.get("transposed", ())} & stored.keys():
        stored[name] = stored[name].t()
    for name in {*manifest.get("buffers", ())} & stored.keys():
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_buffer(leaf, stored.pop(name), persistent=False)
    wanted = unique_tensors(module)
    wrong = sorted(wanted.keys() ^ stored.keys())
    wrong += sorted(name for name in wanted.keys() & stored.keys() if not _fits(stored[name], wanted[name]))
    if wrong:
        raise ModelError(f"{file}: does not match {MANIFEST}; first differing tensor: {wrong[0]}")
    for name, tensor in wanted.items():
        tensor.copy_(stored[name])


def _fits(stored: Tensor, wanted: Tensor) -> bool:
    floats = stored.is_floating_point() and wanted.is_floating_point()
    return stored.shape == wanted.shape and (floats or stored.dtype == wanted.dtype)
