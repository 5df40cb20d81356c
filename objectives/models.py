"""Loading checkpoints, and refusing those that are not what they say.

transformers loads a config with one layer too many with random weights and says nothing, takes a missing
tokenizer for another one, and would unpickle a ``.bin``. Here every key must be there, weights come from
safetensors only, remote code never runs, and the weights are hashed.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as settings

from objectives.anatomy import Family, Stack
from objectives.blocks import Block
from objectives.errors import ModelError, ObjectiveError, Unsupported, said
from objectives.families import described, family_of, relative, undescribed
from objectives.inspection import Inspection, inspect, inspect_folder
from objectives.inspection.config import read_config
from objectives.inspection.folders import ASSET, cached_folder, hub_answers, is_offline, local_folder, require_hub
from objectives.inspection.weights import read_headers
from objectives.settings import FORBID, Name, asks_to_prune
from objectives.types import Device, Head, Lap, Memory, Workload

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_POOLER = re.compile(r"(^|\.)pooler\.")
_COMPUTED = re.compile(
    r"\.(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|embed_positions|rotary_emb\.\w+)$"
)
"""Tables that old checkpoints store and that models now compute."""


@dataclass(frozen=True)
class Padded:
    """A cache of transformers, and which of its places [rows, tokens] count."""

    cache: Any
    mask: Tensor


@dataclass
class LoadedModel:
    """A transformer with its tokenizer and the map of its blocks, which keep the names of the dense model.

    ``layers``: by stack, which of the dense model's blocks are left, where some are gone. ``widths``: by (block,
    consumer), how many sets a pruned unit kept; both are the pruning manifest. ``kept_inputs``: by the same key, the
    input channels that the consumer still reads; ``kept_outputs``: by (block, producer), the rows that it still writes.
    ``predicted_loss``: what the methods expect to have cost, nats per token; NaN where one cannot tell.
    ``pattern``: where masks left zeros, ``2:4`` or ``unstructured``. ``simulated``: some weights are only rounded or
    masked, and stored in no fewer bits. ``notes``: what was not done as asked. ``row``: what describes the
    architecture where that is none of ours. ``dense_config``: the config before any block went, None where none did.
    """

    module: Any
    tokenizer: Any
    head: Head
    layers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    widths: dict[tuple[str, str], int] = field(default_factory=dict)
    kept_inputs: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    kept_outputs: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    predicted_loss: float = 0.0
    simulated: bool = False
    pattern: str = ""
    notes: list[str] = field(default_factory=list)
    row: Family | None = None
    dense_config: Any = None

    @cached_property
    def family(self) -> Family:
        """Where this architecture keeps its projections."""
        row = self.row or family_of(self.module.config.model_type)
        return row.found_in(self.module.base_model)

    @property
    def head_dim(self) -> int:
        """Channels per attention head, of the first stack."""
        return self.family.stacks[0].head_dim(self.module.config)

    def blocks(self) -> Iterator[Block]:
        """The transformer blocks, first to last; an encoder's before those of its decoder."""
        for stack in self.family.stacks:
            for index in self.layers_of(stack):
                yield self.block(f"{stack.layers}.{index}")

    def layers_of(self, stack: Stack) -> tuple[int, ...]:
        """Which blocks of the dense model a stack has."""
        layers: nn.ModuleList = self.module.base_model.get_submodule(stack.layers)
        return self.layers.get(stack.layers, tuple(range(len(layers))))

    def block(self, name: str) -> Block:
        """The block of that name in the dense model."""
        path, _, index = name.rpartition(".")
        stack = {stack.layers: stack for stack in self.family.stacks}[path]
        module = self.module.base_model.get_submodule(f"{path}.{self.layers_of(stack).index(int(index))}")
        return Block(name, module, stack.of(module), stack.head_dim(self.module.config))

    def inputs(self, ids: Tensor) -> dict[str, Tensor]:
        """The arguments of a forward pass over the token batch ``ids`` [rows, tokens].

        An encoder-decoder reads the batch and is made to write the same: its decoder gets it one step later.
        """
        if self.head != "seq2seq":
            return {"input_ids": ids}
        shift = getattr(self.module, "prepare_decoder_input_ids_from_labels", None)
        if shift is not None:
            return {"input_ids": ids, "decoder_input_ids": shift(labels=ids)}
        later = ids.roll(1, dims=1)
        later[:, 0] = self.module.config.decoder_start_token_id
        return {"input_ids": ids, "decoder_input_ids": later}

    # ---- running it in torch: see objectives.types.Runner

    @property
    def vocabulary(self) -> int:
        """See ``objectives.types.Runner``."""
        return int(self.module.config.vocab_size)

    @property
    def stored_bytes(self) -> int:
        """See ``objectives.types.Runner``."""
        from objectives.measuring.weighing import stored_bytes

        return stored_bytes([self.module])

    @property
    def device(self) -> torch.device:
        """See ``objectives.types.Runner``."""
        found: torch.device = self.module.device
        return found

    def encode(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``objectives.types.Runner``."""
        hidden: Tensor = self.module(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden

    def logits(self, ids: Tensor) -> Tensor:
        """See ``objectives.types.Runner``."""
        found: Tensor = self.module(input_ids=ids, use_cache=False).logits
        return found

    def prefill(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """See ``objectives.types.Runner``; the cache is that of transformers, with the mask where there is one."""
        return self._pass(ids, None, mask)

    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """See ``objectives.types.Runner``."""
        if not isinstance(cache, Padded):
            return self._pass(ids, cache, None)
        return self._pass(ids, cache.cache, cache.mask.new_ones(len(ids), ids.shape[1]), cache.mask)

    def _pass(self, ids: Tensor, cache: Any, mask: Tensor | None, seen: Tensor | None = None) -> tuple[Tensor, Any]:
        import torch

        if mask is None:
            output = self.module(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            return output.logits[:, -1], output.past_key_values
        mask = mask if seen is None else torch.cat([seen, mask], dim=1)
        places = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        output = self.module(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        return output.logits[:, -1], Padded(output.past_key_values, mask)

    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, lap: Lap | None = None) -> None:
        """See ``objectives.types.Runner``."""
        from objectives.runtime.greedy import generate

        generate(self, ids, out, mask, lap)

    def memory(self, workload: Workload, device: Device) -> Memory:
        """See ``objectives.types.Runner``: what torch's allocator hands out."""
        return device.memory(self, workload)

    def weights(self, dense_weights: int) -> Mapping[str, float]:
        """See ``objectives.types.Runner``."""
        from objectives.checkpoint import disk_bytes
        from objectives.measuring.weighing import weigh

        return {**weigh(self, dense_weights), "disk_bytes": float(disk_bytes(self))}

    def copy(self) -> LoadedModel:
        """An independent copy, to be compressed."""
        return LoadedModel(copy.deepcopy(self.module), self.tokenizer, self.head, row=self.row)

    def sharing(self) -> LoadedModel:
        """A copy whose modules are its own but whose tensors are shared: blocks may be taken out of it."""
        tensors = (*self.module.parameters(), *self.module.buffers())
        return LoadedModel(
            copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors}), self.tokenizer, self.head,
            row=self.row,
        )  # fmt: skip


def require_units(model: LoadedModel, pruner: object) -> None:
    """Raises Unsupported where ``pruner`` is to remove something and nothing says what belongs together."""
    if asks_to_prune(pruner) and not any(stack.attentions or stack.ffns for stack in model.family.stacks):
        raise Unsupported(f"pruning: {undescribed(model.module.config.model_type, model.module.config.to_dict())}")


def _hint(name: str) -> str:
    near = relative(name)
    return f" (did you mean {near}?)" if near else ""


def auto_class(head: Head) -> Any:
    """The class of transformers that builds models with this head."""
    import transformers

    classes = {
        "causal_lm": transformers.AutoModelForCausalLM,
        "encoder": transformers.AutoModel,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
    }
    return classes[head]


@settings(frozen=True, kw_only=True, config=FORBID)
class Checkpoint:
    """Which model.

    ``path``: a local folder, a Hugging Face hub id, or ``asset:<name>`` for one that ``paretune fetch`` brings.
    ``head``: ``causal_lm`` (GPT type), ``encoder`` (BERT type) or ``seq2seq`` (T5 type). ``revision``: pins a hub id.
    ``families``: by model type, what describes it where that is not ours: the name of a type that is built alike, or a
    :class:`objectives.anatomy.Family`.
    """

    path: Name
    head: Head
    revision: str | None = None
    families: Mapping[str, Family | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a type that none of ours is built like."""
        for model_type, row in self.families.items():
            if isinstance(row, str) and not described(row):
                raise ValueError(f"families.{model_type}: a described type expected{_hint(row)}, got {row!r}")

    def row(self, model_type: str) -> Family | None:
        """What the user says of a model type."""
        row = self.families.get(model_type)
        return family_of(row) if isinstance(row, str) else row

    def unprunable(self) -> str | None:
        """Why no pruner works on this model, from its config.json alone where there is one already; torch-free."""
        try:
            folder = local_folder(self.path) or cached_folder(self.path, self.revision)
            config = None if folder is None else read_config(folder)
        except ObjectiveError:  # what is wrong with it is said when it is inspected
            return None
        if config is None or described(config.model_type) or config.model_type in self.families:
            return None
        return undescribed(config.model_type, config.raw)

    def inspect(self) -> Inspection | None:
        """What its files say, without torch and before a weight is read; None while nothing is here yet.

        Raises ObjectiveError for what is missing, foreign, damaged, or not for ``head``.
        """
        return inspect(self.path, self.head, self.revision)

    def folder(self) -> Path:
        """The local folder with the files; downloads a hub id. Raises ModelError."""
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

        from objectives.canonical import canonicalize_

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        for name in ("torchao", "torch.utils._pytree"):  # that torchao, where it is there, has no CUDA here
            logging.getLogger(name).setLevel(logging.ERROR)
        folder = self.folder()
        inspect_folder(folder, self.head)
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
        row = self.row(module.config.model_type)
        return canonicalize_(LoadedModel(module.eval().requires_grad_(False), tokenizer, self.head, row=row))

    def weights_hash(self) -> str:
        """SHA-256 over the safetensors files, in name order."""
        return _hashed(sorted(self.folder().glob("*.safetensors")))

    def content_hash(self) -> str:
        """SHA-256 over weights, config and tokenizer: over all files of the folder."""
        return _hashed(sorted(path for path in self.folder().iterdir() if path.is_file()))


def _hashed(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def pad_(tokenizer: Any) -> None:
    """Give a tokenizer without a padding token one of those it has: batches need one, and masks hide it."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = next(
            (token for token in (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token) if token is not None),
            tokenizer.convert_ids_to_tokens(0),
        )


def without_pooler(model_class: Any) -> dict[str, bool]:
    """What makes ``model_class`` leave out its pooler, where it can."""
    known = signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in known else {}


def built_with(module: Any) -> dict[str, bool]:
    """What the class of ``module`` is to be given to build such a model again, besides its config."""
    return without_pooler(type(module)) if getattr(module, "pooler", None) is None else {}


def _without_pooler(folder: Path, head: Head) -> dict[str, bool]:
    """Arguments for a model whose weights have no pooler: nothing here reads one, so none is made up."""
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
    """Raises ModelError for weights that the model lacks, or that it has a place for and does not read."""
    missing = [key for key in map(str, info.get("missing_keys", ())) if not _POOLER.search(key)]
    wrong = {"missing keys": missing, "mismatched keys": map(_key, info.get("mismatched_keys", ()))}
    wrong["unexpected keys"] = [key for key in map(str, info.get("unexpected_keys", ())) if _is_read(module, key)]
    for kind, keys in wrong.items():
        found = sorted(keys)
        if found:
            shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
            raise ModelError(f"model.path: {folder} has {kind}: {shown}")


def _key(mismatched: Any) -> str:
    """Its name; transformers tells the shapes beside it."""
    return str(mismatched if isinstance(mismatched, str) else mismatched[0])


def _is_read(module: nn.Module, key: str) -> bool:
    """Whether a weight that was left over lies inside a stack of blocks, where nothing may be left over.

    Heads of other tasks, poolers and tables that are computed lie outside of them, or are named in ``_COMPUTED``.
    """
    if _COMPUTED.search(key):
        return False
    from torch import nn

    stacks = [name.rpartition(".")[2] for name, child in module.named_modules() if isinstance(child, nn.ModuleList)]
    return any(re.search(rf"(^|\.){re.escape(name)}\.\d+\.", key) for name in stacks if name)


def _require_rows(folder: Path, tokenizer: Any, rows: int) -> None:
    """Raises ModelError where the tokenizer's own vocabulary has ids without a row; added tokens may never be used."""
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"model.path: {folder}: the tokenizer has {tokenizer.vocab_size} tokens, the embedding {rows} rows; "
            "give the tokenizer that was saved with this model"
        )
