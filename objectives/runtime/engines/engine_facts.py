"""Collects the facts that every runtime notes beside the files of its engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Any

from objectives.errors import Unsupported
from objectives.protocols.encoder_decoder import Opening
from objectives.runtime.engines.folder import Facts
from objectives.runtime.engines.weights import block_linears
from objectives.runtime.in_torch.seq2seq import opening_of
from objectives.settings import class_path

if TYPE_CHECKING:
    from objectives.models import LoadedModel


def engine_facts_of(
    runtime: Any,
    model: LoadedModel,
    began: float,
    stored: Mapping[str, int],
    others: int,
    options: Mapping[str, Any],
    caches: Sequence[Sequence[int]] = (),
) -> Facts:
    """Return the facts about the engine of ``model`` in ``runtime``.

    ``began``: when making it began (``perf_counter``); ``stored``, ``others``, ``options``, ``caches``: see
    :class:`objectives.runtime.engines.folder.Facts`. Raises Unsupported for a model whose masked or rounded weights are
    only simulated.
    """
    if model.simulated:
        raise Unsupported(f"{runtime.name} stores no masks: its speed and bytes would be those of the dense model")
    linears = [block.linear(path) for block in model.blocks() for path in block.stack.block_linears]
    inside = block_linears(model)
    return Facts(
        runtime=class_path(runtime),
        settings=asdict(runtime),
        options=options,
        head=model.head,
        vocabulary=model.vocabulary,
        caches=caches,
        stored=stored,
        others=others,
        block_weights=sum(linear.in_features * linear.out_features for linear in linears),
        block_bytes=sum(size for name, size in stored.items() if name in inside),
        seconds=perf_counter() - began,
        predicted_loss=None if math.isnan(model.predicted_loss) else model.predicted_loss,
        notes=tuple(model.notes),
        labels=model.labels,
        end_tokens=model.end_tokens,
        opening=opening_of(model.module) if model.head == "seq2seq" else Opening(),
    )
