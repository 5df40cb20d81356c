"""Models whose config is switched, cut in every way, and what becomes of them in a folder.

The switches are made from the config classes: every field of a type that has alternatives is given another value, and
counts where the model's answer changes.
"""

from __future__ import annotations

import copy
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from objectives import load
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import ObjectiveError, Unsupported
from objectives.export import winner
from objectives.export.export_check import answers, differing, model_answers
from objectives.models import LoadedModel, auto_class
from objectives.models.canonical import canonicalize_
from objectives.models.families import FAMILIES, Stack
from objectives.models.inspection.config import Config
from objectives.models.inspection.kinds import refuse_head
from objectives.models.inspection.library import config_class
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.pruning.surgery import keep_layers_
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner
from tests.conftest import SIZES, _tokenizer, head_of

KINDS = ("dense", "width", "even", "depth", "both")
BITS = (16, 8, 4)
BLOCKS = 4
IDS = torch.randint(2, 128, (2, 24), generator=torch.Generator().manual_seed(5))
CALIBRATION = torch.randint(2, 128, (4, 32), generator=torch.Generator().manual_seed(2))
_STRUCTURE = {"vocab_size", "torch_dtype", "dtype", "model_type", "architectures", "transformers_version"}
_WORDS = {"act": ("relu", "gelu", "silu"), "position_embedding_type": ("relative_key",), "attn": ("eager",)}
_ROPES: tuple[dict[str, Any], ...] = (
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16},
)

Changes = Mapping[str, Any]
NOTHING: Changes = {}


def config_of(family: str, changes: Changes = NOTHING) -> Any:
    """A tiny config of ``BLOCKS`` blocks, where the family takes so many."""
    depths = {stack.depth: BLOCKS for stack in FAMILIES[family].stacks}
    try:
        return transformers.AutoConfig.for_model(family, **{**SIZES[family], **depths, **changes})
    except Exception:
        if any(name in changes for name in depths):
            raise
        return transformers.AutoConfig.for_model(family, **{**SIZES[family], **changes})


def model_of(family: str, changes: Changes = NOTHING) -> LoadedModel:
    """A random model, the same for equal names and shapes."""
    module = auto_class(head_of(family)).from_config(config_of(family, changes), dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(1)
    for tensor in {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}.values():
        if isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad:
            tensor.data = tensor.data.to(torch.bfloat16)  # a table of positions: computed, not learned
        elif tensor.is_floating_point():
            centre = tensor.mean() if tensor.min() == tensor.max() else 0.0
            tensor.data = (torch.randn(tensor.shape, generator=generator) * 0.1 + centre).to(torch.bfloat16)
    module.tie_weights()
    return canonicalize_(LoadedModel(module.eval().requires_grad_(False), _tokenizer(), head_of(family)))


def alternatives(config: Any, name: str, value: Any) -> Iterator[Any]:
    """Other values of a field, by its type."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, 2 * value, max(value // 2, 1))
    elif isinstance(value, float):
        yield from (value * 2 + 0.25, value / 3)
    elif isinstance(value, dict) and "rope" in name:
        yield from ({**value, **rope} for rope in _ROPES if "rope_type" in value)
    elif isinstance(value, (list, tuple)) and len(set(map(str, value))) and len(value) == BLOCKS:
        if all(isinstance(one, str) for one in value) and name.endswith("layer_types"):
            yield [("full_attention", "sliding_attention")[place % 2] for place in range(len(value))]
        yield [int(not one) if isinstance(one, (int, bool)) and place % 2 else one for place, one in enumerate(value)]
    elif isinstance(value, str):
        hint = next(
            (cls.__annotations__[name] for cls in type(config).__mro__ if name in vars(cls).get("__annotations__", ())),
            None,
        )
        yield from (one for one in _literals(hint) if one != value)
        yield from (word for part, words in _WORDS.items() if part in name for word in words if word != value)
    elif value is None:
        yield from (True, 2, 8, 0.5)


def _literals(hint: Any) -> Iterator[str]:
    if typing.get_origin(hint) is typing.Literal:
        yield from (one for one in typing.get_args(hint) if isinstance(one, str))
    for inner in typing.get_args(hint) if hint is not None else ():
        yield from _literals(inner) if not isinstance(inner, str) else ()


def switches(family: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Changes of one field that change the answer, and those with which no model is built or runs."""
    base, changing, raising = config_of(family), [], []
    wanted = model_answers(model_of(family), IDS)
    skipped = _STRUCTURE | {name for name in vars(base) if name.startswith(("_", "output_")) or "token" in name}
    for name, value in vars(base).items():
        if name in skipped:
            continue
        for other in alternatives(base, name, value):
            try:
                refuse_head(inspected(config_of(family, {name: other})), head_of(family))
                changed = differing(model_answers(model_of(family, {name: other}), IDS), wanted) is not None
            except Exception:  # whatever a class objects to
                raising.append({name: other})
                continue
            if changed:
                changing.append({name: other})
                if not isinstance(value, (str, dict)):
                    break  # one value of a number is enough
    return changing, raising


def inspected(config: Any) -> Config:
    """The config as its file is read before anything is loaded."""
    return Config(config.to_dict(), config.model_type, config_class(config.model_type))


def kept_of(stack: Stack, blocks: int) -> list[int]:
    """Every other block from the second, and those that cannot go: so that every block left has another place."""
    return sorted({*range(1, blocks, 2), *stack.fixed})


def cut(dense: LoadedModel, kind: str) -> LoadedModel:
    """``dense`` as it is, narrower (``even``: all blocks alike), without blocks, or both. Raises Unsupported."""
    model = dense.copy()
    if kind in {"depth", "both"}:
        if not all(stack.depth for stack in model.family.stacks):
            raise Unsupported("a block stands for others: none may go")
        for stack in model.family.stacks:
            keep_layers_(model, stack, kept_of(stack, len(model.layers_of(stack))))
    if kind in {"width", "even", "both"}:
        statistics = Statistics(replace(model, module=copy.deepcopy(model.module)), {"random": [CALIBRATION]})
        pruner = Structured(
            ratio=0.5 if kind == "even" else 0.3,
            multiple_of=1,
            criterion=Magnitude(),
            allocation="uniform" if kind == "even" else "global",
            reconstruction="none",
        )
        pruner.prune_(model, statistics)
    return model


def packed(model: LoadedModel, bits: int) -> LoadedModel:
    """Rounded to ``bits``, in place."""
    RoundToNearest(bits=bits).quantize_(model, Statistics(model, {}), Cpu())
    return model


def skipping(dense: LoadedModel) -> list[Tensor]:
    """The answer of the dense model whose blocks hand on what they read, where ``cut`` takes them out."""
    model = dense.copy()
    for stack in model.family.stacks:
        kept = kept_of(stack, len(model.layers_of(stack)))
        for index in set(model.layers_of(stack)) - set(kept):
            model.block(f"{stack.layers}.{index}").module.register_forward_hook(_hand_on, with_kwargs=True)
    return model_answers(model, IDS)[:1]


def keeps_its_function(dense: LoadedModel) -> str:
    """Whether the blocks that ``cut`` leaves compute what they did in the dense model: ``yes``, or by how much not."""
    try:
        off = differing(model_answers(cut(dense, "depth"), IDS)[:1], skipping(dense))
    except Unsupported:
        return "none may go"
    except Exception as error:
        return f"does not run: {type(error).__name__}"
    return "yes" if off is None else f"off by {off:.1e}"


def _hand_on(_module: Any, args: Any, kwargs: Any, output: Any) -> Any:
    read = args[0] if args else kwargs["hidden_states"]
    return (read, *output[1:]) if isinstance(output, tuple) else read


def outcome(dense: LoadedModel, kind: str, bits: int, folder: Path) -> str:
    """``plain`` or ``closed``, both loaded again and opened by stock loaders; ``refused: ...``; ``FAULT: ...``."""
    try:
        model = packed(cut(dense, kind), bits)
    except (Unsupported, ObjectiveError) as error:
        return f"refused: {error}"
    return of_measured(dense, model, folder)


def of_measured(dense: LoadedModel, model: LoadedModel, folder: Path) -> str:
    """See :func:`outcome`, of a model that is compressed already."""
    try:
        wanted = model_answers(model, IDS)
    except Exception as error:
        return f"FAULT: it does not run: {type(error).__name__}: {str(error).splitlines()[0][:80]}"
    try:
        winner.save(TorchRunner(model), dense, folder, {}, IDS)
    except ObjectiveError as error:
        return f"refused: {error}" if not folder.exists() else f"FAULT: {folder} was left behind"
    again = load(folder)
    if differing(answers(again, IDS), wanted) is not None:
        return "FAULT: loaded again it answers otherwise"
    return opened_by_transformers(folder, model, wanted)


def opened_by_transformers(folder: Path, model: LoadedModel, wanted: list[Tensor]) -> str:
    """``plain`` with equal answers, ``closed`` where every class refuses and names the way out; or ``FAULT: ...``."""
    plain = bool(json.loads((folder / "paretune.json").read_text())["plain"])
    for opener in (auto_class(model.head), type(model.module)):
        try:
            module, info = opener.from_pretrained(folder, dtype="auto", output_loading_info=True)
        except Exception as error:
            if plain or "objectives.load" not in str(error):
                return f"FAULT: {opener.__name__}: {error}"
            continue
        if not plain:
            return f"FAULT: {opener.__name__} opens it"
        if any(info.get(kind) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            return f"FAULT: {opener.__name__} misses or invents tensors"
        stock = LoadedModel(module.eval(), None, model.head)
        if differing(model_answers(stock, IDS), wanted, 0.05) is not None:  # dtypes of sums differ by CPU
            return f"FAULT: {opener.__name__} answers otherwise"
    return "plain" if plain else "closed"
