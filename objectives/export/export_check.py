"""Checks that a folder answers as the model that was measured, and names the first block that differs where not.

A folder is loaded again and reads the same tokens, at once and from a cache. In torch the same kernels see the same
numbers, so that nothing may differ, not even the last bit. An engine's files are the same files, but its answers may
differ by the order of its sums.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from objectives.errors import ModelError
from objectives.models import LoadedModel
from objectives.models.batch import batch_of
from objectives.models.heads import encoded
from objectives.packing import paths
from objectives.packing.linear import places
from objectives.protocols.running import Runner, RunsInTorch
from objectives.types import ENCODERS

ROWS, TOKENS = 2, 24
ROUNDING = 1e-3
"""Share of an answer's norm that the order of sums may change."""
ANSWERS = "answers.safetensors"


def sample(calibration: Any, rows: int = ROWS, tokens: int = TOKENS) -> Tensor:
    """Return the first tokens of the calibration data, [rows, tokens], repeated where they are not enough."""
    firsts = [batch_of(batch).ids for batches in calibration.values() for batch in batches[:1]]
    first = torch.cat([ids.reshape(-1)[: rows * tokens] for ids in firsts])
    return first.repeat(-(-rows * tokens // len(first)))[: rows * tokens].view(rows, tokens)


def answers(runner: Runner, ids: Tensor) -> list[Tensor]:
    """Return the answers of ``runner`` to ``ids`` [rows, tokens].

    An encoder gives its hidden states or its head's logits, a decoder the logits of all places and those of a step
    from the cache.
    """
    with torch.inference_mode():
        if runner.head in ENCODERS:
            return [runner.encode(ids)]
        if isinstance(runner, RunsInTorch):
            return model_answers(runner.model, ids)
        whole = runner.logits(ids)
        _, cache = runner.prefill(ids[:, :-1])
        return [whole, runner.step(ids[:, -1:], cache)[0]]


def model_answers(model: LoadedModel, ids: Tensor) -> list[Tensor]:
    """Return the answers of a model that has no runner, as :func:`answers` does, from the passes of its module."""
    module = model.module
    with torch.inference_mode():
        if model.head in ENCODERS:
            return [encoded(model.head, module(**model.inputs(ids)))]
        whole = module(**model.inputs(ids)).logits
        first = module(**model.inputs(ids[:, :-1]), use_cache=True)
        inputs: dict[str, Any] = model.inputs(ids[:, -1:])
        last = module(**inputs, past_key_values=first.past_key_values, use_cache=True).logits
        return [whole, last]


def differing(found: list[Tensor], wanted: list[Tensor], allowed: float = 0.0) -> float | None:
    """Return the largest share of its norm by which an answer differs; None where none exceeds ``allowed``."""
    worst: float | None = None
    for one, other in zip(found, wanted, strict=True):
        if one.shape != other.shape:
            return float("inf")
        if torch.equal(one, other):
            continue
        off = float((one.float() - other.float()).norm() / other.float().norm().clamp_min(1e-30))
        if not off <= allowed:  # NaN differs from everything
            worst = max(worst or 0.0, off)
    return worst


def check(measured: Runner, again: Runner, ids: Tensor, folder: Path) -> None:
    """Raise ModelError, naming the first block that differs, unless ``again`` answers ``ids`` as ``measured`` does.

    The tokenizers are compared too.
    """
    models = None
    if isinstance(measured, RunsInTorch) and isinstance(again, RunsInTorch):
        models = measured.model, again.model
    off = differing(answers(again, ids), answers(measured, ids), ROUNDING if models is None else 0.0)
    if off is not None:
        where = "the engine's answer" if models is None else first_difference(*models, ids)
        raise ModelError(f"{folder}: loaded again it answers otherwise than it was measured: {where} differs first")
    text = "The quick brown fox 0123 (jumps)."
    if measured.tokenizer is not None and again.tokenizer(text).input_ids != measured.tokenizer(text).input_ids:
        raise ModelError(f"{folder}: loaded again its tokenizer splits texts otherwise than it was measured")


def first_difference(measured: LoadedModel, again: LoadedModel, ids: Tensor) -> str:
    """Return the name, in the dense model, of the first block whose output differs.

    Where all blocks agree, it is "what follows the last block".
    """
    for (name, one), (_, other) in zip(_outputs(measured, ids), _outputs(again, ids)):
        if one.shape != other.shape or not torch.equal(one, other):
            return name
    return "what follows the last block"


def _outputs(model: LoadedModel, ids: Tensor) -> list[tuple[str, Tensor]]:
    with _watched(model) as seen, torch.inference_mode():
        model.module(**model.inputs(ids))
    return seen


@contextmanager
def _watched(model: LoadedModel) -> Iterator[list[tuple[str, Tensor]]]:
    seen: list[tuple[str, Tensor]] = []

    def note(name: str) -> Any:
        return lambda _module, _inputs, output: seen.append((name, output[0] if isinstance(output, tuple) else output))

    hooks = [block.module.register_forward_hook(note(block.name)) for block in model.blocks()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


# ---- for folders whose measured model is no longer in memory


def write_answers(folder: Path, model: LoadedModel, ids: Tensor) -> None:
    """Write the answers of ``model`` to ``ids`` into ``folder``, beside its weights."""
    kept = {f"answer{place}": tensor.contiguous().clone() for place, tensor in enumerate(model_answers(model, ids))}
    facts = _numerics(model)
    save_file({"ids": ids.contiguous().clone(), **kept}, folder / ANSWERS, metadata=facts)


def _numerics(model: LoadedModel) -> dict[str, str]:
    """Return what the order of sums depends on within a machine."""
    return {"threads": str(torch.get_num_threads()), "paths": paths.digest(places(model.module))}


def check_answers(folder: Path, model: LoadedModel) -> None:
    """Raise ModelError unless ``model`` gives the answers that :func:`write_answers` wrote.

    With another number of threads or other kernels they may differ by rounding.
    """
    from safetensors import safe_open

    try:
        with safe_open(folder / ANSWERS, "pt") as file:
            numerics = file.metadata()
        kept = load_file(folder / ANSWERS)
        ids = kept.pop("ids")
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(f"{folder / ANSWERS}: no answers to compare with: {error}") from error
    same = numerics == _numerics(model)
    now = model_answers(model, ids)
    wanted = [kept[name] for name in sorted(kept)]
    if len(now) != len(wanted) or differing(now, wanted, 0.0 if same else 1e-2) is not None:
        raise ModelError(f"{folder}: it answers otherwise than when it was made")
