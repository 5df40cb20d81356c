"""Loads checkpoints, and refuses those that are not what they say.

transformers loads a config with one layer too many with random weights and says nothing, takes a missing
tokenizer for another one, and would unpickle a ``.bin``. Here every key must be there, weights come from
safetensors only, remote code never runs, and the weights are hashed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as settings

from objectives.errors import ModelError, ObjectiveError, said
from objectives.models.anatomy import Family
from objectives.models.families import described, family_of, relative, undescribed
from objectives.models.heads import auto_class
from objectives.models.inspection import Inspection, inspect, inspect_folder
from objectives.models.inspection.config import read_config
from objectives.models.inspection.folders import (
    ASSET,
    cached_folder,
    hub_answers,
    is_offline,
    local_folder,
    require_hub,
)
from objectives.models.inspection.weights import read_headers
from objectives.models.loaded_model import LoadedModel, without_pooler
from objectives.settings import FORBID, Name
from objectives.types import Head

if TYPE_CHECKING:
    from torch import nn

_POOLER = re.compile(r"(^|\.)pooler\.")
_COMPUTED = re.compile(
    r"\.(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|embed_positions|rotary_emb\.\w+)$"
)
"""Tables that old checkpoints store and that models now compute."""


@settings(frozen=True, kw_only=True, config=FORBID)
class Checkpoint:
    """The checkpoint that is compressed: where its files are and what kind of model it is.

    ``path``: a local folder, a Hugging Face hub id, or ``asset:<name>`` for one that ``paretune fetch`` brings.
    ``head``: ``causal_lm`` (GPT type), ``seq2seq`` (T5 type), ``encoder`` (BERT type), or an encoder with its own head:
    ``classifier``, ``token_classifier``, ``question_answering``. ``revision``: pins a hub id.
    ``families``: descriptions of model types that are used in place of ours: the name of a described type that is built
    alike, or a :class:`objectives.models.anatomy.Family`.
    """

    path: Name
    head: Head
    revision: str | None = None
    families: Mapping[str, Family | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError where ``families`` names a type that no row of ours describes."""
        for model_type, row in self.families.items():
            if isinstance(row, str) and not described(row):
                raise ValueError(f"families.{model_type}: a described type expected{_hint(row)}, got {row!r}")

    def row(self, model_type: str) -> Family | None:
        """Return the user's description of a model type; None where ``families`` has none."""
        row = self.families.get(model_type)
        return family_of(row) if isinstance(row, str) else row

    def unprunable(self) -> str | None:
        """Return in one line why no pruner works on this model; None where one may, or where that is not known yet.

        Reads config.json alone and needs no torch.
        """
        try:
            folder = local_folder(self.path) or cached_folder(self.path, self.revision)
            config = None if folder is None else read_config(folder)
        except ObjectiveError:  # what is wrong with it is said when it is inspected
            return None
        if config is None or described(config.model_type) or config.model_type in self.families:
            return None
        return undescribed(config.model_type, config.raw)

    def inspect(self) -> Inspection | None:
        """Inspect the files, without torch and before a weight is read; return None while they are not here yet.

        Raises ObjectiveError for a checkpoint that is missing, foreign, damaged, or not for ``head``.
        """
        return inspect(self.path, self.head, self.revision)

    def folder(self) -> Path:
        """Return the local folder with the files; a hub id is downloaded, an asset built. Raises ObjectiveError."""
        found = local_folder(self.path)
        if found is not None:
            return found
        if self.path.startswith(ASSET):
            return _built_asset(self.path.removeprefix(ASSET))
        return _hub_folder(self.path, self.revision)

    def load(self) -> LoadedModel:
        """Load in bfloat16 on the CPU, every weight accounted for. Raises ObjectiveError."""
        import torch
        import transformers

        from objectives.models.canonical import canonicalize_

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        for name in ("torchao", "torch.utils._pytree"):  # that torchao, where it is there, has no CUDA here
            logging.getLogger(name).setLevel(logging.ERROR)
        folder = self.folder()
        inspected = inspect_folder(folder, self.head)
        try:
            module, info = auto_class(self.head).from_pretrained(
                folder,
                dtype=torch.bfloat16,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **_without_pooler(folder, self.head),
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # transformers raises many types, some without a file name
            raise ModelError(f"model.path: cannot load {folder}: {type(error).__name__}: {said(error)}") from error
        _require_keys(folder, module, info)
        _require_rows(folder, tokenizer, module.get_input_embeddings().weight.shape[0])
        pad_(tokenizer)
        tokenizer.model_max_length = min(tokenizer.model_max_length, inspected.positions or tokenizer.model_max_length)
        row = self.row(module.config.model_type)
        return canonicalize_(LoadedModel(module.eval().requires_grad_(False), tokenizer, self.head, row=row))

    def weights_hash(self) -> str:
        """Return the SHA-256 over the safetensors files, in name order."""
        return _hashed(sorted(self.folder().glob("*.safetensors")))

    def content_hash(self) -> str:
        """Return the SHA-256 over weights, config and tokenizer: over all files of the folder, in name order."""
        return _hashed(sorted(path for path in self.folder().iterdir() if path.is_file()))


def _hashed(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _hint(name: str) -> str:
    near = relative(name)
    return f" (did you mean {near}?)" if near else ""


def pad_(tokenizer: Any) -> None:
    """Give a tokenizer that has no padding token another of its tokens: batches need one, and masks hide it."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = next(
            (token for token in (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token) if token is not None),
            tokenizer.convert_ids_to_tokens(0),
        )


def _without_pooler(folder: Path, head: Head) -> dict[str, bool]:
    """Return the arguments that leave out the pooler of a model whose weights have none.

    Otherwise transformers would make one up, which nothing here reads.
    """
    import transformers

    if head != "encoder" or any(_POOLER.search(name) for name in read_headers(folder)):
        return {}
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return without_pooler(transformers.AutoModel._model_mapping[type(config)])


def _built_asset(name: str) -> Path:
    from objectives import assets

    try:
        return assets.locate(name)
    except assets.AssetError as error:
        raise assets.AssetError(f"model.path: {error}") from error


def _hub_folder(hub_id: str, revision: str | None) -> Path:
    """Download (or find in the hub's cache) the files a checkpoint needs. Raises ModelError, at once where offline."""
    from huggingface_hub import snapshot_download

    kept = cached_folder(hub_id, revision)
    if kept is None:
        require_hub(hub_id)
    elif is_offline() or not hub_answers():
        return kept
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.spm"],
                etag_timeout=5,
            )
        )
    except Exception as error:
        raise ModelError(
            f"model.path: {hub_id} is no local directory (working directory {Path.cwd()}), and the hub does not give "
            f"it: {type(error).__name__}: {said(error)}"
        ) from error


def _require_keys(folder: Path, module: nn.Module, info: Mapping[str, Any]) -> None:
    """Raise ModelError for keys that are missing, that have another shape, or that a block does not read."""
    missing = [key for key in map(str, info.get("missing_keys", ())) if not _POOLER.search(key)]
    wrong = {"missing keys": missing, "mismatched keys": map(_key, info.get("mismatched_keys", ()))}
    wrong["unexpected keys"] = [key for key in map(str, info.get("unexpected_keys", ())) if _is_read(module, key)]
    for kind, keys in wrong.items():
        found = sorted(keys)
        if found:
            shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
            raise ModelError(f"model.path: {folder} has {kind}: {shown}")


def _key(mismatched: Any) -> str:
    """Return the name of a mismatched key; transformers may give the shapes beside it."""
    return str(mismatched if isinstance(mismatched, str) else mismatched[0])


def _is_read(module: nn.Module, key: str) -> bool:
    """Return whether a weight that was left over lies inside a stack of blocks, where nothing may be left over.

    Heads of other tasks, poolers and tables that are computed lie outside of them, or are named in ``_COMPUTED``.
    """
    if _COMPUTED.search(key):
        return False
    from torch import nn

    stacks = [name.rpartition(".")[2] for name, child in module.named_modules() if isinstance(child, nn.ModuleList)]
    return any(re.search(rf"(^|\.){re.escape(name)}\.\d+\.", key) for name in stacks if name)


def _require_rows(folder: Path, tokenizer: Any, rows: int) -> None:
    """Raise ModelError where the tokenizer's own vocabulary has ids without a row; added tokens do not count."""
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"model.path: {folder}: the tokenizer has {tokenizer.vocab_size} tokens, the embedding {rows} rows; "
            "give the tokenizer that was saved with this model"
        )
