"""The headers of a checkpoint's safetensors: names, types and shapes of all weights, without reading one.

A file begins with the length of its header, eight bytes, and the header, which is JSON
(https://github.com/huggingface/safetensors#format). A config that has fewer blocks than the weights loads without a
word, since keys that no module wants are not read; so blocks are counted here, in both directions.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from objectives.errors import ModelError
from objectives.models.inspection.config import Config, read_json

INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_FLOATS = {"F64", "F32", "F16", "BF16"}
_BLOCK = re.compile(r"^(.*?)\.(\d+)\.")
_EMBEDDING = re.compile(
    r"(?:^|\.)(embed_tokens|wte|word_embeddings|shared|embed_in|tok_embeddings|tokens_embed)\.weight$"
)
_WIDTHS = (
    "hidden_size", "embedding_size", "input_embedding_size", "embedding_dim", "embed_dim", "embedding_rank",
    "word_embed_proj_dim", "d_embed", "d_model", "n_embd", "dim",
)  # fmt: skip


_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Stored:
    """A tensor of a file: its type as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_headers(folder: Path) -> dict[str, Stored]:
    """Return all tensors that transformers would read. Raises ModelError for a file that is damaged or not there."""
    return {name: stored for file in _files(folder) for name, stored in _header(file).items()}


def _files(folder: Path) -> list[Path]:
    """Return the one file, or the shards of the index. Raises ModelError where files are missing."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    if not (folder / INDEX).is_file():
        astray = next((path for path in folder.glob("*.safetensors") if path.is_symlink() and not path.exists()), None)
        if astray is not None:
            raise ModelError(f"model.path: {astray} is a link to {astray.readlink()}, which is not there")
        found = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))[:3])
        raise ModelError(
            f"model.path: {folder} has neither {_WHOLE} nor {INDEX}, which transformers reads; got {found}"
        )
    index = read_json(folder / INDEX)
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise ModelError(f"model.path: cannot load {folder}: {INDEX} has no weight_map")
    shards = [folder / name for name in sorted({str(name) for name in listed.values()})]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"model.path: {folder} lacks {missing[0]}{rest} of {len(shards)} shards ({INDEX})")
    return shards


def _header(file: Path) -> dict[str, Stored]:
    """Return names, types and shapes of one file. Raises ModelError where header and size disagree."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            stream.seek(0)
            if stream.read(len(_POINTER)) == _POINTER:
                raise ModelError(f"model.path: {file} is a pointer of git-lfs and no weights: run git lfs pull there")
            raise _damaged(file, f"its header would take {length + 8} bytes of {size}")
        text = stream.read(length)
    try:
        entries = json.loads(text)
        tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        found = {name: Stored(str(entry["dtype"]), tuple(entry["shape"])) for name, entry in tensors.items()}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise _damaged(file, "its header is no safetensors header") from error
    if size != 8 + length + end:
        raise _damaged(file, f"{8 + length + end} bytes expected, got {size}")
    return found


def _damaged(file: Path, reason: str) -> ModelError:
    return ModelError(f"model.path: cannot load {file.parent}: {file.name} is damaged: {reason}; copy it again")


def refuse_weights(folder: Path, config: Config, weights: Mapping[str, Stored]) -> None:
    """Raise ModelError for weights that are no floats, or that have other blocks or embeddings than the config."""
    _refuse_types(folder, weights)
    _refuse_embedding(folder, config, weights)
    _refuse_layers(folder, config, weights)


def _refuse_types(folder: Path, weights: Mapping[str, Stored]) -> None:
    for name, stored in weights.items():
        if stored.dtype not in _FLOATS and len(stored.shape) > 1 and re.search(r"weight|scales|zeros", name):
            raise ModelError(
                f"model.path: {folder} is quantised already ({name} is stored as {stored.dtype}); give the "
                "full-precision checkpoint"
            )


def _refuse_embedding(folder: Path, config: Config, weights: Mapping[str, Stored]) -> None:
    found = next((stored for name, stored in weights.items() if _EMBEDDING.search(name)), None)
    vocabulary = config.number("vocab_size")
    if found is None or len(found.shape) != 2:
        return
    if vocabulary is not None and found.shape[0] != vocabulary:
        raise ModelError(
            f"model.path: {folder}: config.json has a vocab_size of {vocabulary}, its weights embed {found.shape[0]} "
            "tokens; give the config that was saved with these weights"
        )
    widths = [width for width in map(config.number, _WIDTHS) if width is not None]
    if widths and found.shape[1] not in widths:
        raise ModelError(
            f"model.path: {folder}: config.json has a hidden_size of {widths[0]}, its weights embed tokens in "
            f"{found.shape[1]} channels; give the config that was saved with these weights"
        )


def _refuse_layers(folder: Path, config: Config, weights: Mapping[str, Stored]) -> None:
    stacks = _stacks(weights)
    for side, said in _depths(config).items():
        found = stacks.get(side)
        if said is None or found is None:
            continue
        path, blocks, name = found[0], found[1], side
        allowed = {said, said + (config.number("num_nextn_predict_layers") or 0)}
        if blocks not in allowed:
            whose = f"{name} blocks" if name else "blocks"
            raise ModelError(
                f"model.path: {folder}: config.json has {said} {whose}, its weights have {blocks} ({path}.0 to "
                f"{path}.{blocks - 1}); give the config that was saved with these weights"
            )


def _depths(config: Config) -> dict[str, int | None]:
    """Return, by side of an encoder-decoder (an empty side for all others), the number of blocks of the config."""
    if config.get("is_encoder_decoder"):
        first = config.number("encoder_layers") or config.number("num_layers") or config.number("num_hidden_layers")
        return {
            "encoder": first,
            "decoder": config.number("decoder_layers") or config.number("num_decoder_layers") or first,
        }
    shared = config.number("num_hidden_groups")  # ALBERT: blocks that repeat are stored once
    return {"": shared or config.number("num_hidden_layers") or config.number("num_layers")}


def _stacks(weights: Mapping[str, Stored]) -> dict[str, tuple[str, int]]:
    """Return, by side, the path of the stack that holds most tensors, and the number of its blocks."""
    blocks: dict[str, set[int]] = defaultdict(set)
    tensors: dict[str, int] = defaultdict(int)
    for name in weights:
        match = _BLOCK.match(name)
        if match:
            blocks[match[1]].add(int(match[2]))
            tensors[match[1]] += 1
    found: dict[str, tuple[str, int]] = {}
    for path in sorted(blocks, key=lambda path: tensors[path]):
        for side in ("", *({"encoder", "decoder"} & set(path.split(".")))):
            found[side] = (path, max(blocks[path]) + 1)
    return found
