"""Makes a winner's folder a plain checkpoint that transformers loads with equal answers, or one that it refuses.

A folder whose linears are packed, or whose blocks differ in their widths, has no config that says so: transformers
would load what it can name, initialise the rest and answer nonsense. Such a folder is *closed*: its config.json is a
stub that no class of transformers opens, the config stands in ``paretune_config.json`` and the weights in
``paretune.safetensors``. Whether a folder can be *plain* instead is not looked up but tried: the class is built from a
config, names and shapes are compared, then it is loaded by ``from_pretrained`` and asked.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from objectives.content_hash import sha256
from objectives.devices.cpu import Cpu
from objectives.export.export_check import differing, model_answers
from objectives.models import LoadedModel, auto_class
from objectives.models.canonical import canonicalize_
from objectives.models.inspection.folders import MANIFEST as MANIFEST
from objectives.packing.fp32 import Fp32Linear
from objectives.runtime.formats.plain_config import config_of, is_transposed, stock_class
from objectives.tasks.answers import in_a_line

log = logging.getLogger(__name__)

CONFIG = "config.json"
OWN_CONFIG = "paretune_config.json"
PLAIN_WEIGHTS = "model.safetensors"
OWN_WEIGHTS = "paretune.safetensors"
HINT = "paretune: open this folder with objectives.load(folder)"

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
    config = config_of(model, {name: tensor.shape for name, tensor in tensors.items()})
    if config is None:
        return False
    stock = stock_class(config, model)
    transposed = sorted(name for name in tensors if is_transposed(stock, name))
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
