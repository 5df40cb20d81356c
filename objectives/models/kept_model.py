"""Writes a model that a program has loaded as a checkpoint, named by its content.

From there on it is a folder like any other, in the precision that the model has; :class:`Checkpoint` loads all in
bfloat16. Equal models are one folder, which is written once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from objectives.errors import ModelError, said

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = 16
"""Hexadecimal digits of a SHA-256 that name a folder."""
_ORIGIN = ("is_local", "local_files_only", "name_or_path")


def keep_model(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Write a ``PreTrainedModel`` with its tokenizer below ``folder`` and return the checkpoint.

    ``tokenizer``: a loaded one, a folder or hub id of one, or None for that of the place which the model was loaded
    from. Raises ModelError for a model that is no whole checkpoint, and where there is no tokenizer.
    """
    _require_whole(model)
    tokenizer = _tokenizer(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".part-") as temporary:
        part = Path(temporary) / "part"
        tokenizer.save_pretrained(part)
        model.config.save_pretrained(part)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(part)
        final = folder / _content_hash(model, part)[:DIGITS]
        if final.is_dir():
            return final
        model.save_pretrained(part)
        try:
            part.rename(final)
        except OSError:  # another process has just written it
            if not final.is_dir():
                raise
    return final


def _require_whole(model: Any) -> None:
    """Raise ModelError for adapters, of which only a part would be saved, and for weights that are not in memory."""
    if getattr(model, "_hf_peft_config_loaded", False) or hasattr(model, "peft_config"):
        raise ModelError("model: it has adapters, of which only their own weights would be saved; merge them first "
                         "(peft: model.merge_and_unload())")  # fmt: skip
    if not (hasattr(model, "config") and hasattr(model, "state_dict") and hasattr(model, "save_pretrained")):
        raise ModelError(f"model: a PreTrainedModel of transformers expected, got {type(model).__qualname__}; "
                         "give one, or a folder, a hub id or asset:<name>")  # fmt: skip
    absent = next((name for name, tensor in _tensors(model) if tensor.is_meta), None)
    if absent is not None:
        raise ModelError(f"model: the weight {absent} is not in memory (device meta); load the model as a whole")


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    yield from sorted(model.state_dict().items())


def _tokenizer(model: Any, given: Any) -> Any:
    if given is not None and not isinstance(given, (str, Path)):
        return given
    source = getattr(model, "name_or_path", "") if given is None else str(given)
    if not source:
        raise ModelError("tokenizer: none given, and the model does not say where it came from; give tokenizer=")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=given is None)
    except Exception as error:  # transformers raises many types
        whose = "the model came from there" if given is None else "as given"
        raise ModelError(f"tokenizer: none can be loaded from {source} ({whose}): {said(error)}; give tokenizer="
                         "<a tokenizer, or its folder>") from error  # fmt: skip


def _content_hash(model: Any, folder: Path) -> str:
    """Return the SHA-256 over the weights and over the files of ``folder``, which has config and tokenizer."""
    import torch

    hashed = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in _tensors(model):
        hashed.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        hashed.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        hashed.update(file.name.encode() + _content(file))
    return hashed.hexdigest()


def _content(file: Path) -> bytes:
    """Return the content of a file without the keys that tell where a tokenizer was loaded from."""
    data = file.read_bytes()
    if file.name != "tokenizer_config.json":
        return data
    said = {key: value for key, value in json.loads(data).items() if key not in _ORIGIN}
    return json.dumps(said, sort_keys=True).encode()
